//! What methods of object classes take and give: programs that OSDs run beside an object.

pub mod lock;
