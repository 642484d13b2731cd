//! Brings a database to the schema that this version knows, one transaction for each step.
//!
//! **Invariant:** a file is at one version or at the next, never between; a shipped step is never
//! edited. **May not:** touch a file that is no index, or one of a newer recsync.
#![forbid(unsafe_code)]

use std::path::Path;

use recsync_proto::Epoch;
use rusqlite::Connection;

use super::IndexError;
use super::error::from_sqlite;

/// Marks the file as recsync's: "rsyn", in the header where file(1) shows it.
const APPLICATION_ID: i64 = 0x7273_796e;

/// What leads from version `n` to `n + 1`, by `n`.
const STEPS: [&str; 1] = [include_str!("schema/1.sql")];

/// The newest schema that this version knows.
pub(super) const KNOWN: i64 = STEPS.len() as i64;

/// Returns the schema's version; zero for a file without content.
///
/// # Errors
/// If the file is no index of recsync, or a newer one's.
pub(super) fn version(conn: &Connection, path: &Path) -> Result<i64, IndexError> {
    let number = |name: &str, table: &str| {
        conn.query_row(&format!("SELECT {name} FROM {table}"), [], |row| row.get::<_, i64>(0))
            .map_err(|error| from_sqlite(path, error))
    };
    let found = number("user_version", "pragma_user_version")?;
    let application = number("application_id", "pragma_application_id")?;
    let tables = number("count(*)", "sqlite_schema")?;
    let empty = (found, application, tables) == (0, 0, 0);
    if !empty && (application != APPLICATION_ID || found < 1) {
        let why = "it is another program's database".to_owned();
        return Err(IndexError::Damaged { path: path.display().to_string(), why });
    }
    if found > KNOWN {
        let path = path.display().to_string();
        return Err(IndexError::Newer { path, found, known: KNOWN });
    }
    Ok(found)
}

/// Brings the schema up to date; a file without content gets an epoch.
///
/// # Errors
/// As [`version`], and if the database fails; the steps that were done stay done.
pub(super) fn migrate(
    conn: &mut Connection,
    path: &Path,
    fresh_epoch: impl FnOnce() -> Epoch,
) -> Result<(), IndexError> {
    let found = version(conn, path)?;
    let mut fresh = (found == 0).then(fresh_epoch);
    let steps = STEPS.iter().zip(1..).filter(|(_, reached)| *reached > found);
    for (step, reached) in steps {
        take(conn, step, reached, fresh.take()).map_err(|error| from_sqlite(path, error))?;
    }
    Ok(())
}

fn take(
    conn: &mut Connection,
    step: &str,
    reached: i64,
    fresh: Option<Epoch>,
) -> rusqlite::Result<()> {
    let transaction = conn.transaction()?;
    transaction.execute_batch(step)?;
    if let Some(epoch) = fresh {
        let row = "INSERT INTO state (only, epoch) VALUES (1, ?1)";
        transaction.execute(row, [epoch.0.cast_signed()])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    transaction.pragma_update(None, "user_version", reached)?;
    transaction.commit()
}
