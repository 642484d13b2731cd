//! The engine's tests: the two tables row by row, the laws of the algebra, what users do to one,
//! two and more nodes, and random histories.

mod harness;

mod scenarios;

mod clashes;
mod conflict;
mod guard;
mod lost;
mod owner;
mod rules;
mod settle;
mod tables;
mod three;
mod trouble;
mod version;
