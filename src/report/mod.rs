//! From rows of results to what a person reads: statistics, verdicts, tables.

pub mod advice;
pub mod arm;
pub mod compare;
pub mod csv;
pub mod findings;
pub mod json;
pub mod predictions;
pub mod table;
pub mod verdict;
