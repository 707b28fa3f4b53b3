//! Files with secrets: mode 0600, whole or not there, safe once written.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a file that only its owner may read, in place of one of that name, so that it survives the loss of power.
///
/// It is written beside (`<name>.new`), synced and renamed: a crash leaves the old file or the new one, whole. Two processes must
/// not write the same file at once.
///
/// # Errors
/// What the disk says; the old file is still there then, or the new one is and may not survive the loss of power.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft(path)?;
    // One that a crash left behind has whatever mode and content.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

fn draft(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"))?;
    let mut draft = OsString::from(name);
    draft.push(".new");
    Ok(path.with_file_name(draft))
}

/// The permission bits of a file that others than its owner may use; none where they cannot, or the system has no such bits.
///
/// # Errors
/// What the disk says.
pub fn open_to_others(file: &File) -> io::Result<Option<u32>> {
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions()) & 0o777;
    #[cfg(not(unix))]
    let mode = {
        file.metadata()?;
        0
    };
    Ok((mode & 0o077 != 0).then_some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.key");
        // What a crash left behind: longer, and open to all.
        fs::write(dir.path().join("some.key.new"), b"half of a longer one").unwrap();
        fs::write(&path, b"old").unwrap();
        assert!(open_to_others(&File::open(&path).unwrap()).unwrap().is_some(), "the test's own file is private");
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(open_to_others(&File::open(&path).unwrap()).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.key");
        fs::write(&path, b"old").unwrap();
        fs::create_dir(dir.path().join("some.key.new")).unwrap();
        write(&path, b"new").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(write(Path::new("/"), b"new").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(write(&dir.path().join("no/key"), b"new").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
