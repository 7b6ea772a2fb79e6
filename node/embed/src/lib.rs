//! Planaria.
