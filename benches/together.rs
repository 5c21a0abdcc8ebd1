//! Whether several networks' layers are faster as one product than one after the other, operator by operator, on one
//! thread. `just bench-together` runs it, and two small sweeps whose groups decide the same for whole steps.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use tl_sweep::nn::activation::Activation;
use tl_sweep::nn::conv::{self, Conv};
use tl_sweep::nn::{linear, one_thread};

const NETWORKS: usize = 6;
const BATCH: usize = 64;
const RUNS: usize = 15;

fn main() {
    println!(
        "{NETWORKS} networks, batch {BATCH}, one thread: medians of {RUNS} runs in ms, one after the other | as one product\n"
    );
    println!(
        "| layer | forward: apart | together | ratio | gradient of weights: apart | together | ratio | forward in groups, each with its own input |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    one_thread(|| {
        for (side, depth, out, kernel, stride) in [
            (32, 16, 16, 3, 1),
            (32, 16, 32, 3, 2),
            (16, 32, 32, 3, 1),
            (8, 64, 64, 3, 1),
            (16, 32, 64, 3, 2),
            (4, 256, 256, 1, 1),
        ] {
            convolution(side, depth, out, kernel, stride);
        }
        for (depth, out) in [(256, 64), (256, 256), (512, 128), (2048, 256)] {
            layer(depth, out);
        }
    })
    .unwrap();
}

fn convolution(side: usize, depth: usize, out: usize, kernel: usize, stride: usize) {
    let conv = Conv { kernel: [kernel; 2], stride, dilation: 1, padding: [kernel / 2; 4], groups: 1 };
    let x = numbers(&[BATCH, side, side, depth]);
    let ws: Vec<Tensor> = (0..NETWORKS).map(|_| numbers(&[out, depth, kernel, kernel])).collect();
    let ws: Vec<&Tensor> = ws.iter().collect();
    let forward = |w: &&Tensor| conv::forward(&conv, &x, w, None, Activation::Linear).unwrap();
    let dys: Vec<Tensor> = ws.iter().map(forward).collect();
    let dys: Vec<&Tensor> = dys.iter().collect();
    let shape = [BATCH, side, side, depth];
    let apart = median(|| ws.iter().for_each(|w| drop(forward(w))));
    let together = median(|| drop(conv::forward_several(&conv, &x, &ws, None, Activation::Linear).unwrap()));
    let gradients_apart = median(|| {
        for (w, dy) in ws.iter().zip(&dys) {
            conv::backward(&conv, shape, Some(&x), w, dy, false).unwrap();
        }
    });
    let gradients_together = median(|| drop(conv::weight_gradients(&conv, &x, &ws, &dys).unwrap()));
    let (grouped, inputs) = (Conv { groups: NETWORKS, ..conv }, numbers(&[BATCH, side, side, NETWORKS * depth]));
    let all = Tensor::cat(&ws, 0).unwrap();
    let in_groups = median(|| drop(conv::forward(&grouped, &inputs, &all, None, Activation::Linear).unwrap()));
    row(
        &format!("conv {kernel}x{kernel} {depth}-{out} @{side}, stride {stride}"),
        [(apart, together), (gradients_apart, gradients_together)],
        Some((apart, in_groups)),
    );
}

fn layer(depth: usize, out: usize) {
    let (x, w, bias) = (numbers(&[BATCH, depth]), numbers(&[out, depth]), numbers(&[out]));
    let (all, biases) = (numbers(&[NETWORKS * out, depth]), numbers(&[NETWORKS * out]));
    let (dy, dys) = (numbers(&[BATCH, out]), numbers(&[BATCH, NETWORKS * out]));
    let forward = |w: &Tensor, bias: &Tensor| drop(linear::forward(&x, w, bias, Activation::Relu).unwrap());
    let apart = median(|| (0..NETWORKS).for_each(|_| forward(&w, &bias)));
    let together = median(|| forward(&all, &biases));
    let gradient = || drop(linear::backward(Some(&x), &w, &dy, false).unwrap());
    let gradients_apart = median(|| (0..NETWORKS).for_each(|_| gradient()));
    let gradients_together = median(|| drop(linear::heads_backward(&x, &dys, NETWORKS).unwrap()));
    row(&format!("linear {depth}-{out}"), [(apart, together), (gradients_apart, gradients_together)], None);
}

fn row(layer: &str, pairs: [(f64, f64); 2], grouped: Option<(f64, f64)>) {
    let cells = pairs.map(|(apart, together)| format!("{apart:.2} | {together:.2} | {:.2}", together / apart));
    let grouped = grouped.map_or("-".to_owned(), |(apart, groups)| format!("{groups:.2}, {:.2}", groups / apart));
    println!("| {layer} | {} | {} | {grouped} |", cells[0], cells[1]);
}

/// Numbers in [0, 1) that are not all alike.
fn numbers(shape: &[usize]) -> Tensor {
    Tensor::rand(0f32, 1.0, shape, &Device::Cpu).and_then(|tensor| tensor.to_dtype(DType::F32)).unwrap()
}

fn median(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            work();
            1e3 * start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}
