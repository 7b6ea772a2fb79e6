//! Which rows are given away: an expression of SQL over the columns of one table.

use std::cmp::Ordering;

use planaria_engine::{Column, ColumnType, Schema, Value};
use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value as Literal};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

/// Words and signs of an expression, values aside: they bound how deep it can be.
const WORDS_MAX: usize = 1_000;

/// A row is given away where this is true; not where it is false, nor where a null keeps it unknown.
#[derive(Debug)]
pub(super) struct Filter(Test);

#[derive(Debug)]
enum Test {
    Constant(Option<bool>),
    /// A column of truth values.
    Is(usize),
    IsNull(usize),
    Compare(usize, Comparison, Value),
    CompareColumns(usize, Comparison, usize),
    /// A value among others, one of which may be null.
    In(usize, Vec<Value>, bool),
    Like(usize, Vec<Piece>),
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A part of a pattern of LIKE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    One(char),
    AnyOne,
    AnyMany,
}

impl Comparison {
    fn of(operator: &BinaryOperator) -> Option<Self> {
        Some(match operator {
            BinaryOperator::Eq => Self::Equal,
            BinaryOperator::NotEq => Self::Unequal,
            BinaryOperator::Lt => Self::Less,
            BinaryOperator::LtEq => Self::LessOrEqual,
            BinaryOperator::Gt => Self::Greater,
            BinaryOperator::GtEq => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    /// The same with its sides exchanged.
    fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Filter {
    /// Reads an expression over the columns of `schema`. The error says what is wrong with it.
    pub(super) fn parse(schema: &Schema, text: &str) -> Result<Self, String> {
        let words = |error: sqlparser::parser::ParserError| error.to_string();
        let dialect = GenericDialect {};
        let tokens = Tokenizer::new(&dialect, text).tokenize().map_err(|error| error.to_string())?;
        let nests = |token: &&Token| {
            !matches!(
                token,
                Token::Comma | Token::Number(..) | Token::SingleQuotedString(_) | Token::Whitespace(_)
            )
        };
        if tokens.iter().filter(nests).count() > WORDS_MAX {
            return Err(format!("it has more than {WORDS_MAX} words and signs, values aside"));
        }
        let mut parser = Parser::new(&dialect).with_tokens(tokens);
        let expression = parser.parse_expr().map_err(words)?;
        parser.expect_token(&Token::EOF).map_err(words)?;
        Compiler { schema }.test(&expression).map(Self)
    }

    /// Whether a row is given away.
    pub(super) fn admits(&self, row: &[Value]) -> bool {
        self.0.holds(row) == Some(true)
    }
}

impl Test {
    /// Whether it holds; none where that is unknown.
    fn holds(&self, row: &[Value]) -> Option<bool> {
        let value = |column: &usize| row.get(*column).filter(|value| !value.is_null());
        match self {
            Self::Constant(constant) => *constant,
            Self::Is(column) => match value(column)? {
                Value::Bool(is) => Some(*is),
                _ => None,
            },
            Self::IsNull(column) => Some(value(column).is_none()),
            Self::Compare(column, comparison, with) => Some(comparison.holds(value(column)?.cmp(with))),
            Self::CompareColumns(left, comparison, right) => {
                Some(comparison.holds(value(left)?.cmp(value(right)?)))
            }
            Self::In(column, list, has_null) => {
                let value = value(column)?;
                if list.contains(value) { Some(true) } else { (!has_null).then_some(false) }
            }
            Self::Like(column, pattern) => match value(column)? {
                Value::Text(text) => Some(is_like(text, pattern)),
                _ => None,
            },
            Self::Not(inner) => inner.holds(row).map(|holds| !holds),
            Self::And(left, right) => match (left.holds(row), right.holds(row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(left, right) => match (left.holds(row), right.holds(row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }
}

/// One side of a comparison.
enum Side<'a> {
    Column(usize, &'a Column),
    /// The text of a literal; none for null.
    Literal(Option<String>),
}

struct Compiler<'a> {
    schema: &'a Schema,
}

impl Compiler<'_> {
    fn test(&self, expression: &Expr) -> Result<Test, String> {
        match expression {
            Expr::Nested(inner) => self.test(inner),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => Ok(Test::Not(Box::new(self.test(expr)?))),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                Ok(Test::And(Box::new(self.test(left)?), Box::new(self.test(right)?)))
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                Ok(Test::Or(Box::new(self.test(left)?), Box::new(self.test(right)?)))
            }
            Expr::BinaryOp { left, op, right } => {
                let comparison = Comparison::of(op).ok_or_else(|| format!("{op} is not known here"))?;
                Self::compare(self.side(left)?, comparison, self.side(right)?)
            }
            Expr::IsNull(inner) => Ok(Test::IsNull(self.column(inner)?.0)),
            Expr::IsNotNull(inner) => Ok(Test::Not(Box::new(Test::IsNull(self.column(inner)?.0)))),
            Expr::InList { expr, list, negated } => {
                let (index, column) = self.column(expr)?;
                let (mut values, mut has_null) = (Vec::new(), false);
                for item in list {
                    match self.side(item)? {
                        Side::Literal(Some(text)) => values.push(literal(column, &text)?),
                        Side::Literal(None) => has_null = true,
                        Side::Column(..) => return Err("a list holds values, not columns".into()),
                    }
                }
                Ok(negate(Test::In(index, values, has_null), *negated))
            }
            Expr::Between { expr, negated, low, high } => {
                let low = Self::compare(self.side(expr)?, Comparison::GreaterOrEqual, self.side(low)?)?;
                let high = Self::compare(self.side(expr)?, Comparison::LessOrEqual, self.side(high)?)?;
                Ok(negate(Test::And(Box::new(low), Box::new(high)), *negated))
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                let (index, column) = self.column(expr)?;
                if column.ty != ColumnType::Text {
                    return Err(format!(
                        "LIKE needs a column of text, {:?} is {}",
                        column.name,
                        column.ty.name()
                    ));
                }
                let Side::Literal(Some(pattern)) = self.side(pattern)? else {
                    return Err("the pattern of LIKE is a text in quotes".into());
                };
                Ok(negate(Test::Like(index, pieces(&pattern)), *negated))
            }
            Expr::Value(value) => match &value.value {
                Literal::Boolean(is) => Ok(Test::Constant(Some(*is))),
                Literal::Null => Ok(Test::Constant(None)),
                _ => Err(format!("{expression} is no condition")),
            },
            Expr::Identifier(_) => match self.column(expression)? {
                (index, column) if column.ty == ColumnType::Bool => Ok(Test::Is(index)),
                (_, column) => {
                    Err(format!("column {:?} is no condition: it is {}", column.name, column.ty.name()))
                }
            },
            _ => Err(format!("{expression} is not known here")),
        }
    }

    fn compare(left: Side<'_>, comparison: Comparison, right: Side<'_>) -> Result<Test, String> {
        match (left, right) {
            (Side::Column(left, one), Side::Column(right, other)) => {
                if one.ty != other.ty {
                    return Err(format!(
                        "columns {:?} and {:?} are of different types",
                        one.name, other.name
                    ));
                }
                Ok(Test::CompareColumns(left, comparison, right))
            }
            (Side::Column(index, column), Side::Literal(Some(text))) => {
                Ok(Test::Compare(index, comparison, literal(column, &text)?))
            }
            (Side::Literal(Some(text)), Side::Column(index, column)) => {
                Ok(Test::Compare(index, comparison.mirrored(), literal(column, &text)?))
            }
            // What is compared with null is unknown, whatever it is.
            (Side::Column(..), Side::Literal(None)) | (Side::Literal(None), Side::Column(..)) => {
                Ok(Test::Constant(None))
            }
            (Side::Literal(_), Side::Literal(_)) => Err("a comparison names a column".into()),
        }
    }

    fn side(&self, expression: &Expr) -> Result<Side<'_>, String> {
        let text = match expression {
            Expr::Nested(inner) => return self.side(inner),
            Expr::Identifier(_) => {
                let (index, column) = self.column(expression)?;
                return Ok(Side::Column(index, column));
            }
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match self.side(expr)? {
                Side::Literal(Some(number)) => format!("-{number}"),
                _ => return Err(format!("{expression} is no number")),
            },
            // DATE '2013-01-01' and the like.
            Expr::TypedString(typed) => text_of(&typed.value.value).ok_or("a typed value is a text")?,
            Expr::Value(value) => match &value.value {
                Literal::Null => return Ok(Side::Literal(None)),
                other => text_of(other).ok_or_else(|| format!("{expression} is not known here"))?,
            },
            _ => return Err(format!("{expression} is neither a column nor a value")),
        };
        Ok(Side::Literal(Some(text)))
    }

    fn column(&self, expression: &Expr) -> Result<(usize, &Column), String> {
        let Expr::Identifier(name) = expression else {
            return Err(format!("{expression} is no column"));
        };
        let index = self.schema.position(&name.value);
        let found = index.and_then(|index| Some((index, self.schema.columns().get(index)?)));
        found.ok_or_else(|| format!("there is no column {:?}", name.value))
    }
}

fn text_of(value: &Literal) -> Option<String> {
    match value {
        Literal::Number(number, _) => Some(number.clone()),
        Literal::SingleQuotedString(text) => Some(text.clone()),
        Literal::Boolean(is) => Some(is.to_string()),
        _ => None,
    }
}

fn literal(column: &Column, text: &str) -> Result<Value, String> {
    column.parse(text).map_err(|error| error.to_string())
}

fn negate(test: Test, negated: bool) -> Test {
    if negated { Test::Not(Box::new(test)) } else { test }
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let piece = |letter| match letter {
        '%' => Piece::AnyMany,
        '_' => Piece::AnyOne,
        letter => Piece::One(letter),
    };
    pattern.chars().map(piece).collect()
}

/// Whether a text is like a pattern, in time that is at most the product of their lengths: after a mismatch only the last `%` takes one
/// letter more.
fn is_like(text: &str, pattern: &[Piece]) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut piece) = (0, 0);
    let mut last_many: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(piece) {
            Some(Piece::AnyMany) => {
                last_many = Some((piece, at));
                piece += 1;
            }
            Some(Piece::AnyOne) => (at, piece) = (at + 1, piece + 1),
            Some(Piece::One(letter)) if text.get(at) == Some(letter) => (at, piece) = (at + 1, piece + 1),
            _ => {
                let Some((many, taken)) = last_many else { return false };
                last_many = Some((many, taken + 1));
                (at, piece) = (taken + 1, many + 1);
            }
        }
    }
    pattern.iter().skip(piece).all(|piece| *piece == Piece::AnyMany)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
