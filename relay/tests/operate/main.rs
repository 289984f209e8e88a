//! Operating a relay: the built program, watched, backed up, restored and ended as its operator would.

mod audit;
mod backup;
mod backup_postgres;
mod commands;
mod compat;
mod end;
mod moves;
mod observed;
mod process;
