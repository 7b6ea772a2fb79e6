use planaria_engine::{Batch, Durability, Table};
use planaria_net::wire::message::{Ack, RemoteError, Response, ScanSpec, WriteOptions};
use planaria_net::wire::rows::{Row, RowsBuilder};
use planaria_net::wire::rpc::Exchange;
use planaria_types::Uid;

use super::{DatabaseHandler, add_row, check_cut, remote};

impl DatabaseHandler {
    /// Sends the rows of a scan, batch by batch, as fast as the client takes them.
    pub(super) fn scan(&self, scan: ScanSpec, exchange: &mut Exchange) -> Result<Response, RemoteError> {
        let snapshot = self.database().snapshot();
        check_cut(scan.at, snapshot.uid())?;
        let table = self.database().table(&scan.table).map_err(remote)?;
        let limit = scan.limit.unwrap_or(u64::MAX);
        let mut records = snapshot.scan(table.id(), scan.range);
        let mut batch = RowsBuilder::new();
        let mut rows = 0;
        let mut next_key = None;
        while let Some(record) = if scan.reverse { records.next_back() } else { records.next() } {
            let (key, row) = record.map_err(remote)?;
            if rows == limit {
                next_key = Some(key);
                break;
            }
            rows += 1;
            send_row(&mut batch, &key, &row, exchange)?;
        }
        if !batch.is_empty() {
            exchange.send_rows(batch.take())?;
        }
        Ok(Response::Scanned { at: snapshot.uid(), rows, next_key })
    }

    /// Commits the batches of an import as they come. They are durable when it is answered.
    pub(super) fn import(
        &self,
        table: &str,
        options: &WriteOptions,
        exchange: &mut Exchange,
    ) -> Result<Response, RemoteError> {
        self.check_options(options)?;
        let table = self.database().table(table).map_err(remote)?;
        let mut taken = Ack::default();
        let mut uid = Uid::ZERO;
        while let Some(rows) = exchange.next_rows()? {
            taken.rows += rows.len() as u64;
            taken.batches += 1;
            uid = uid.max(self.commit_rows(&table, rows, options)?);
            exchange.ack(taken)?;
        }
        self.database().sync().map_err(remote)?;
        // Batches that did not wait for other copies one by one do so together.
        if !options.durable && taken.rows > 0 {
            self.companion.wait(uid, options)?;
        }
        let epoch = self.database().history().epoch_of(uid);
        Ok(Response::Imported { uid, epoch, rows: taken.rows })
    }

    fn commit_rows(&self, table: &Table, rows: Vec<Row>, options: &WriteOptions) -> Result<Uid, RemoteError> {
        let durability = if options.durable { Durability::Synced } else { Durability::Background };
        let mut batch = Batch::new();
        for row in rows {
            add_row(&mut batch, table, row.key, row.value)?;
        }
        let uid = self.database().write(batch, durability).map_err(remote)?;
        if options.durable {
            self.companion.wait(uid, options)?;
        }
        Ok(uid)
    }
}

fn send_row(
    batch: &mut RowsBuilder,
    key: &[u8],
    row: &[u8],
    exchange: &mut Exchange,
) -> Result<(), RemoteError> {
    // The engine's scans tell no UIDs, and clients do not ask for them.
    if batch.push(Uid::ZERO, key, row).is_err() {
        exchange.send_rows(batch.take())?;
        batch.push(Uid::ZERO, key, row).map_err(|error| RemoteError::new(error.code(), error.to_string()))?;
    }
    if batch.is_full() {
        exchange.send_rows(batch.take())?;
    }
    Ok(())
}
