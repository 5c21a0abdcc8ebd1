//! Whole training steps and forward passes: `cargo bench --bench step`. Prints medians in milliseconds.

use std::time::Instant;

use candle_core::{Device, Tensor};
use tl_sweep::exec::{Mode, Network};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::init;
use tl_sweep::nn::loss::cross_entropy;
use tl_sweep::seed::{Stream, stream};

fn main() -> anyhow::Result<()> {
    for (name, width, input, batch) in [
        ("resnet20", 1.0, 32, 64),
        ("resnet8", 1.0, 16, 32),
        ("vgg_small", 1.0, 32, 64),
        ("mobilenet_v1", 0.25, 128, 64),
    ] {
        let graph = Arch { name: name.to_owned(), input, width }.graph(10).map_err(anyhow::Error::msg)?;
        let weights = init::fresh(&graph, 0, 1, 0)?;
        let macs = graph.total_macs();
        let network = Network::new(graph, &weights, &Device::Cpu)?;
        let mut rng = stream(1, Stream::Synthetic, &[]);
        let pixels: Vec<f32> = (0..batch * 3 * input * input).map(|_| rng.normal() as f32).collect();
        let x = Tensor::from_vec(pixels, (batch, 3, input, input), &Device::Cpu)?;
        let labels: Vec<u32> = (0..batch as u32).map(|index| index % 10).collect();
        let forward = median(|| network.forward(&x, Mode::Evaluate).map(drop))?;
        let step = median(|| {
            let mut rng = stream(1, Stream::Dropout, &[]);
            let mut tape = network.forward(&x, Mode::Train(&mut rng))?;
            let loss = cross_entropy(&tape.result()?, &labels, Default::default())?;
            network.backward(&mut tape, loss.gradient).map(drop)
        })?;
        let rate = |milliseconds: f64, passes: f64| 2e-6 * passes * macs as f64 * batch as f64 / milliseconds;
        println!(
            "{name}@{input} batch {batch}: forward {forward:.1} ms ({:.0} GFLOP/s), step {step:.1} ms ({:.0} GFLOP/s)",
            rate(forward, 1.0),
            rate(step, 3.0)
        );
    }
    Ok(())
}

fn median(mut work: impl FnMut() -> candle_core::Result<()>) -> anyhow::Result<f64> {
    work()?;
    let mut times = Vec::new();
    for _ in 0..9 {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
