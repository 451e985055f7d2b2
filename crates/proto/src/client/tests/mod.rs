//! A client against a scripted cluster in fake time: servers that share one log, and do the least that a server does.

mod fake_server;
mod finding;
mod hearing;
mod hostile;
mod moving;
mod posting;
mod rooms;
mod sleeping;
mod world;
