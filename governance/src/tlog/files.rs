//! The files of a log: on disk, and in tests a disk that loses what was not synced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A folder of files, named by paths with `/`. Nothing is safe before it is synced: the bytes of a file by [`sync`], its name by
/// [`sync_dir`].
///
/// [`sync`]: Files::sync
/// [`sync_dir`]: Files::sync_dir
pub trait Files: Send + 'static {
    /// Reads a whole file.
    ///
    /// # Errors
    /// `NotFound`, or what the disk says.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// The names of all files in a folder and below it, sorted; none if there is no such folder.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Writes a whole file anew, and the folders above it.
    ///
    /// # Errors
    /// What the disk says; the file may hold a part.
    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes at a place of a file that exists.
    ///
    /// # Errors
    /// What the disk says; a part may be written.
    fn write_at(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file.
    ///
    /// # Errors
    /// What the disk says.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Makes a file's bytes survive the loss of power.
    ///
    /// # Errors
    /// What the disk says; the file is not to be trusted then.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Makes the names in a folder survive the loss of power.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_dir(&mut self, dir: &str) -> io::Result<()>;
    /// Gives a file another name, in place of a file that has it.
    ///
    /// # Errors
    /// What the disk says.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// What a file that is not complete yet is called.
pub(crate) const DRAFT: &str = ".new";

/// Writes a file so that a crash leaves the whole of it or what was there before. Its name is safe after a sync of its folder.
pub(crate) fn replace(files: &mut impl Files, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = format!("{name}{DRAFT}");
    files.create(&draft, bytes)?;
    files.sync(&draft)?;
    files.rename(&draft, name)
}

/// The folder that a name is in; the empty name is the log's own.
pub(crate) fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// A folder on disk. One process has it at a time.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    /// The file written last: appends go to the same one again and again.
    open: Option<(String, File)>,
    /// Held as long as the folder is in use.
    _lock: Option<File>,
}

/// The file whose lock says that a process uses the folder.
pub(crate) const LOCK: &str = "lock";

impl Disk {
    /// Takes a folder for this process; it is made if it is not there.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it, or what the disk says.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(LOCK))?;
        lock.try_lock().map_err(io::Error::from)?;
        Ok(Self { dir, open: None, _lock: Some(lock) })
    }

    /// A folder to be read only, as for an audit, whoever uses it.
    #[must_use]
    pub fn reading(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), open: None, _lock: None }
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        let is_open = self.open.as_ref().is_some_and(|(open, _)| open == name);
        let file = match self.open.take().filter(|_| is_open) {
            Some((_, file)) => file,
            None => OpenOptions::new().write(true).open(self.dir.join(name))?,
        };
        Ok(&self.open.insert((name.to_owned(), file)).1)
    }

    /// Makes a folder; those that were not there survive the loss of power.
    fn make(&mut self, dir: &str) -> io::Result<()> {
        if dir.is_empty() || self.dir.join(dir).is_dir() {
            return Ok(());
        }
        self.make(folder(dir))?;
        match fs::create_dir(self.dir.join(dir)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(folder(dir))
    }
}

impl Files for Disk {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.dir.join(name))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        match walk(&self.dir.join(dir), dir, &mut names) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        names.sort();
        Ok(names)
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.make(folder(name))?;
        self.open = None;
        fs::write(self.dir.join(name), bytes)
    }

    fn write_at(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all_at(bytes, at)
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.file(name)?.set_len(len)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        File::open(self.dir.join(dir))?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.open = None;
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open = None;
        fs::remove_file(self.dir.join(name))
    }
}

fn walk(path: &Path, name: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let own = entry.file_name();
        let own = own.to_string_lossy();
        let name = if name.is_empty() { own.into_owned() } else { format!("{name}/{own}") };
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &name, names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod sim;
