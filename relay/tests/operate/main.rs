//! Operating a relay: the built program, watched, backed up, restored and ended as its operator would.

mod audit;
mod backup;
mod commands;
mod end;
mod observed;
mod process;
