//! Where a proxy keeps its last good table.

use std::fmt::Debug;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

/// Keeps one text. Small and rare, on the control thread alone, so plain blocking calls will do.
pub trait Store: Debug + 'static {
    /// The text kept last; `None` where there is none yet.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    fn load(&self) -> io::Result<Option<String>>;

    /// When the text kept last was written or [confirmed](Store::confirm), since 1970; `None` where that is not known.
    fn confirmed(&self) -> Option<Duration>;

    /// Notes that the text kept last is right still, at `wall` since 1970.
    ///
    /// # Errors
    /// If it cannot be noted.
    fn confirm(&self, wall: Duration) -> io::Result<()>;

    /// Keeps a text in place of the one before. After a crash either of the two is there, whole.
    ///
    /// # Errors
    /// If it cannot be written; the one before stays.
    fn save(&self, text: &str) -> io::Result<()>;
}

/// A file, replaced by atomic rename.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// Keeps the text at `path`; its folder must exist.
    pub fn new(path: PathBuf) -> Self {
        FileStore { path }
    }
}

impl Store for FileStore {
    fn load(&self) -> io::Result<Option<String>> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn confirmed(&self) -> Option<Duration> {
        let modified = std::fs::metadata(&self.path).ok()?.modified().ok()?;
        modified.duration_since(UNIX_EPOCH).ok()
    }

    fn confirm(&self, wall: Duration) -> io::Result<()> {
        match std::fs::File::options().append(true).open(&self.path) {
            Ok(file) => file.set_modified(UNIX_EPOCH + wall),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // about to be written
            Err(error) => Err(error),
        }
    }

    fn save(&self, text: &str) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)
    }
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoStore;

impl Store for NoStore {
    fn load(&self) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn confirmed(&self) -> Option<Duration> {
        None
    }

    fn confirm(&self, _wall: Duration) -> io::Result<()> {
        Ok(())
    }

    fn save(&self, _text: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_a_failed_save_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path().join("table.json"));
        assert_eq!(store.load().unwrap(), None);
        store.save("one").unwrap();
        store.save("two").unwrap();
        assert_eq!(store.load().unwrap().as_deref(), Some("two"));
        std::fs::create_dir(folder.path().join("table.new")).unwrap();
        assert!(store.save("three").is_err());
        let confirmed = Duration::from_secs(1_800_000_000);
        store.confirm(confirmed).unwrap();
        assert_eq!(store.confirmed(), Some(confirmed));
        assert_eq!(store.load().unwrap().as_deref(), Some("two"));
    }
}
