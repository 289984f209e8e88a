//! Operating a relay: the built program, watched, backed up, restored and ended as its operator would.

mod backup;
mod end;
mod observed;
mod process;
