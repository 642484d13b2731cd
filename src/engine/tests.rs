//! The engine's tests: the two tables row by row, the laws of the algebra, what users do to one
//! and two nodes, and random histories.

mod harness;

mod scenarios;

mod conflict;
mod guard;
mod owner;
mod rules;
mod settle;
mod tables;
mod trouble;
mod version;
