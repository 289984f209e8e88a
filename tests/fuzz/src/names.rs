//! Names and paths.

use ferry_protocol::limits::NAME_MAX_BYTES;
use ferry_protocol::name::display_bytes;
use ferry_protocol::{Name, RelPath};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// What is accepted as a name is one component; as a path, components that only lead down.
pub fn path_component(bytes: &[u8]) {
    let shown = display_bytes(bytes);
    assert!(!shown.chars().any(char::is_control));
    if let Ok(name) = Name::new(bytes) {
        assert!((1..=NAME_MAX_BYTES).contains(&bytes.len()) && name.as_bytes() == bytes);
        let components: Vec<Component<'_>> = Path::new(OsStr::from_bytes(bytes)).components().collect();
        assert_eq!(components, [Component::Normal(OsStr::from_bytes(bytes))]);
        let key = name.fold_key();
        if let Ok(folded) = Name::new(&key) {
            assert_eq!(folded.fold_key(), key, "folding twice is folding once");
        }
        assert_eq!(RelPath::parse(bytes), Ok(RelPath::root().join(&name)));
    }
    if let Ok(path) = RelPath::parse(bytes) {
        assert_eq!(path.to_bytes(), bytes);
        let components = Path::new(OsStr::from_bytes(bytes)).components();
        assert!(components.clone().all(|c| matches!(c, Component::Normal(_))) && components.count() == path.names().len());
    }
}
