//! Sums and moments of every channel, in an order that follows from shapes alone.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::nn::buffer::{tensor, with};
use crate::nn::kernel::{madd, on_every_path};

/// Numbers of a block whose sums are taken in f32; sums of blocks are added in f64.
const BLOCK: usize = 4096;
/// Numbers of one task.
const TASK: usize = 16 * BLOCK;
/// Rows of few channels are taken side by side, up to this width, so that vectors are full.
const WIDE: usize = 64;

/// Channels repeated until a row is wide.
pub fn widened(channels: &[f32]) -> Vec<f32> {
    channels.repeat(repeats(channels.len()))
}

fn repeats(channels: usize) -> usize {
    (WIDE / channels).max(1)
}

/// Numbers of a block: whole wide rows.
pub fn block(channels: usize) -> usize {
    let wide = channels * repeats(channels);
    (BLOCK / wide).max(1) * wide
}

/// Numbers of a task: whole blocks.
pub fn tasks(channels: usize) -> usize {
    (TASK / block(channels)).max(1) * block(channels)
}

/// Adds the repeats of each channel to its total.
pub fn fold(wide: &[f32], total: &mut [f64]) {
    for row in wide.chunks_exact(total.len()) {
        total.iter_mut().zip(row).for_each(|(total, value)| *total += f64::from(*value));
    }
}

/// The sum of every column of rows of `columns` numbers.
pub fn column_sums(x: &[f32], columns: usize) -> Vec<f64> {
    let task = tasks(columns);
    let parts: Vec<Vec<f64>> = x
        .par_chunks(task)
        .map(|x| {
            let mut total = vec![0f64; columns];
            let mut wide = vec![0f32; columns * repeats(columns)];
            for x in x.chunks(block(columns)) {
                wide.fill(0.0);
                add_rows(x, &mut wide);
                fold(&wide, &mut total);
            }
            total
        })
        .collect();
    let mut total = vec![0f64; columns];
    parts.iter().for_each(|part| total.iter_mut().zip(part).for_each(|(total, part)| *total += part));
    total
}

on_every_path! {
    fn add_rows(x: &[f32], sums: &mut [f32]) {
        for x in x.chunks(sums.len()) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
    }
}

/// Count, mean and sum of squared distances from the mean, per channel.
struct Moments {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Those of both sets together (Chan, Golub and LeVeque, 1979).
    fn join(mut self, other: &Self) -> Self {
        let count = self.count + other.count;
        for channel in 0..self.mean.len() {
            let step = other.mean[channel] - self.mean[channel];
            self.mean[channel] += step * other.count / count;
            self.squares[channel] += other.squares[channel] + step * step * self.count * other.count / count;
        }
        Self { count, ..self }
    }
}

pub fn moments(x: &Tensor, channels: usize) -> Result<(Tensor, Tensor)> {
    let found = with([x], |[x]| {
        let parts: Vec<Option<Moments>> = x
            .par_chunks(tasks(channels))
            .map(|x| {
                x.chunks(block(channels)).map(|x| block_moments(x, channels)).reduce(|left, right| left.join(&right))
            })
            .collect();
        parts.into_iter().flatten().reduce(|left, right| left.join(&right))
    })?;
    let Some(found) = found else { candle_core::bail!("batch norm of an empty batch") };
    let mean = found.mean.iter().map(|mean| *mean as f32).collect();
    let variance = found.squares.iter().map(|squares| (squares / found.count) as f32).collect();
    Ok((tensor(mean, channels)?, tensor(variance, channels)?))
}

/// The moments of one block, which stays in the cache for both of its passes.
fn block_moments(x: &[f32], channels: usize) -> Moments {
    let count = (x.len() / channels) as f64;
    let mut wide = vec![0f32; channels * repeats(channels)];
    let mut mean = vec![0f64; channels];
    add_rows(x, &mut wide);
    fold(&wide, &mut mean);
    mean.iter_mut().for_each(|mean| *mean /= count);
    let centre: Vec<f32> = mean.iter().map(|mean| *mean as f32).collect();
    wide.fill(0.0);
    add_squares(x, &widened(&centre), &mut wide);
    let mut squares = vec![0f64; channels];
    fold(&wide, &mut squares);
    let centre = centre.into_iter().map(f64::from);
    // The distances were taken from the mean rounded to f32.
    let squares =
        squares.into_iter().zip(mean.iter().zip(centre)).map(|(s, (mean, centre))| s - count * (mean - centre).powi(2));
    Moments { count, squares: squares.collect(), mean }
}

on_every_path! {
    fn add_squares(x: &[f32], centre: &[f32], sums: &mut [f32]) {
        for x in x.chunks(sums.len()) {
            let centre = &centre[..x.len()];
            for (index, sum) in sums[..x.len()].iter_mut().enumerate() {
                let distance = x[index] - centre[index];
                *sum = madd::<FUSED>(distance, distance, *sum);
            }
        }
    }
}
