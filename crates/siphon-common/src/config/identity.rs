use std::sync::Arc;

use super::ConfigError;

/// The types of entities (`EntityName::get_valid_types_as_str` of Ceph's `common/entity_name.cc`).
pub(super) const TYPES: &[&str] = &["auth", "mon", "osd", "mds", "mgr", "client"];

/// Who reads the configuration: it chooses the sections of a file, and what `$name` and the like mean.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    kind: String,
    id: String,
    pub(super) cluster: String,
    /// Whether it has a daemon's defaults.
    pub(super) daemon: bool,
    /// Tells the contexts of a process apart: all that comes from one configuration shares it.
    token: Arc<()>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            kind: "client".to_owned(),
            id: "admin".to_owned(),
            cluster: "ceph".to_owned(),
            daemon: false,
            token: Arc::new(()),
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.kind.clone(), it.id.clone(), it.cluster.clone(), it.daemon);
        of(self) == of(other)
    }
}

impl Identity {
    /// `TYPE.ID`.
    pub(super) fn set_name(&mut self, name: &str) -> Result<(), ConfigError> {
        match name.split_once('.') {
            Some((kind, id)) if TYPES.contains(&kind) && !id.is_empty() => {
                kind.clone_into(&mut self.kind);
                id.clone_into(&mut self.id);
                Ok(())
            }
            _ => Err(ConfigError::BadName { name: name.to_owned() }),
        }
    }

    pub(super) fn set_id(&mut self, id: &str) {
        id.clone_into(&mut self.id);
    }

    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.kind, self.id)
    }

    /// `$cctid`.
    pub(super) fn cctid(&self) -> usize {
        Arc::as_ptr(&self.token).addr()
    }

    /// The sections of a file that count, the last winning.
    pub(super) fn sections(&self) -> [String; 3] {
        ["global".to_owned(), self.kind.clone(), self.name()]
    }
}
