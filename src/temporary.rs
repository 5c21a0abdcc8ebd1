//! Names for files that are being written, before they take their place.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// A name beside `path` that no other writer has, on no machine: processes of a cluster share a disk, and may have equal
/// numbers. `gc` knows it by its ending.
pub fn beside(path: &Path) -> PathBuf {
    path.with_extension(format!("tmp{}-{:016x}", std::process::id(), RandomState::new().build_hasher().finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_writers_have_one_name() {
        let path = Path::new("cache/a.features");
        let names: std::collections::HashSet<PathBuf> = (0..1000).map(|_| beside(path)).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.parent() == path.parent() && name != path));
    }
}
