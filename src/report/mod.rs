//! From rows of results to what a person reads: statistics, verdicts, tables.

pub mod advice;
pub mod arm;
pub mod calibration;
pub mod compare;
pub mod csv;
mod curves;
pub mod errors;
mod figure;
pub mod findings;
pub mod gain;
pub mod html;
pub mod inquiry;
pub mod interim;
pub mod json;
pub mod labels;
pub mod latex;
pub mod look;
pub mod predictions;
pub mod ranking;
pub mod reasons;
mod reliability;
mod settings;
pub mod sheets;
pub mod shift;
pub mod table;
pub mod variance;
pub mod verdict;
