//! What the database says, in the index's words.
//!
//! **May not:** lose the database's own words where a person needs them.
#![forbid(unsafe_code)]

use std::path::Path;

use rusqlite::ffi::{self, ErrorCode};
use rusqlite::{Error, types::Type};

use super::IndexError;

/// Returns the index's error for a database's.
pub(super) fn from_sqlite(path: &Path, error: Error) -> IndexError {
    let path = path.display().to_string();
    let why = error.to_string();
    match &error {
        Error::SqliteFailure(ffi::Error { code, extended_code }, _) => match code {
            ErrorCode::DiskFull => IndexError::NoSpace { path },
            // Growing the shared-memory file fails so when the disk is full.
            _ if *extended_code == ffi::SQLITE_IOERR_SHMSIZE => IndexError::NoSpace { path },
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                IndexError::Damaged { path, why }
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => IndexError::InUse { path },
            _ => IndexError::Other { path, why },
        },
        // Every column is written by this program alone: one that does not read back is damage.
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::QueryReturnedNoRows => IndexError::Damaged { path, why },
        _ => IndexError::Other { path, why },
    }
}

/// Returns the error for anything else.
pub(super) fn other(path: &Path, why: impl ToString) -> IndexError {
    IndexError::Other { path: path.display().to_string(), why: why.to_string() }
}

/// Returns the error for a column whose value cannot be.
pub(super) fn bad_column(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::FromSqlConversionFailure(column, Type::Null, error.into())
}
