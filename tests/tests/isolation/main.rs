//! What a module sees and may do, asked from inside of it: started by the real launcher
//! from docker's create options, as a deployment gives them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod binds;
mod capabilities;
mod defaults;
mod devices;
mod files;
mod init;
mod joined;
mod lab;
mod launcher;
mod layers;
mod limits;
mod network;
mod options;
mod peers;
mod process;
mod programs;
mod requests;
mod runc;
mod seccomp;
mod stopping;
mod userns;
mod users;
mod volumes;
