//! Every operator and its gradients by their definitions, in plain loops, for any kind of float. In f64 finite differences
//! check them; the fast loops must agree with them.

use num_traits::Float;

/// [n, height, width, channels].
pub type Dims = [usize; 4];

pub fn size(dims: &[usize]) -> usize {
    dims.iter().product()
}

fn at(dims: Dims, n: usize, y: usize, x: usize, c: usize) -> usize {
    ((n * dims[1] + y) * dims[2] + x) * dims[3] + c
}

fn f<F: Float>(value: f64) -> F {
    F::from(value).unwrap()
}

#[derive(Clone, Copy, Debug)]
pub struct Conv {
    pub kernel: [usize; 2],
    pub stride: usize,
    pub dilation: usize,
    /// Top, bottom, left, right.
    pub padding: [usize; 4],
    pub groups: usize,
}

impl Conv {
    pub fn out_dims(&self, x: Dims, out: usize) -> Dims {
        let side = |side: usize, before: usize, after: usize, kernel: usize| {
            (side + before + after - (kernel - 1) * self.dilation - 1) / self.stride + 1
        };
        let [top, bottom, left, right] = self.padding;
        [x[0], side(x[1], top, bottom, self.kernel[0]), side(x[2], left, right, self.kernel[1]), out]
    }

    /// Calls `visit(output, input, weight)` for every product; weights are [out, channels / groups, kernel...].
    fn products(&self, x: Dims, out: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let (y, per_group) = (self.out_dims(x, out), x[3] / self.groups);
        for (n, row, column, o) in positions(y) {
            let first = o / (out / self.groups) * per_group;
            for i in 0..per_group {
                for (a, b) in pairs(self.kernel) {
                    let down = (row * self.stride + a * self.dilation).checked_sub(self.padding[0]);
                    let across = (column * self.stride + b * self.dilation).checked_sub(self.padding[2]);
                    if let (Some(down), Some(across)) = (down.filter(|v| *v < x[1]), across.filter(|v| *v < x[2])) {
                        let weight = ((o * per_group + i) * self.kernel[0] + a) * self.kernel[1] + b;
                        visit(at(y, n, row, column, o), at(x, n, down, across, first + i), weight);
                    }
                }
            }
        }
    }

    pub fn forward<F: Float>(&self, x: &[F], dims: Dims, w: &[F], out: usize) -> Vec<F> {
        let mut y = vec![F::zero(); size(&self.out_dims(dims, out))];
        self.products(dims, out, |o, i, k| y[o] = y[o] + x[i] * w[k]);
        y
    }

    /// Of x and w.
    pub fn backward<F: Float>(&self, x: &[F], dims: Dims, w: &[F], out: usize, dy: &[F]) -> [Vec<F>; 2] {
        let (mut dx, mut dw) = (vec![F::zero(); x.len()], vec![F::zero(); w.len()]);
        self.products(dims, out, |o, i, k| {
            dx[i] = dx[i] + dy[o] * w[k];
            dw[k] = dw[k] + dy[o] * x[i];
        });
        [dx, dw]
    }
}

pub fn positions(dims: Dims) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..size(&dims)).map(move |at| {
        let (rest, c) = (at / dims[3], at % dims[3]);
        (rest / dims[2] / dims[1], rest / dims[2] % dims[1], rest % dims[2], c)
    })
}

fn pairs(sides: [usize; 2]) -> impl Iterator<Item = (usize, usize)> {
    (0..sides[0]).flat_map(move |a| (0..sides[1]).map(move |b| (a, b)))
}

/// y = x w^T + b; x [n, k], w [m, k].
pub fn linear<F: Float>(x: &[F], w: &[F], b: &[F]) -> Vec<F> {
    let k = w.len() / b.len();
    let dot = |x: &[F], w: &[F]| x.iter().zip(w).fold(F::zero(), |sum, (x, w)| sum + *x * *w);
    x.chunks(k).flat_map(|x| w.chunks(k).zip(b).map(move |(w, b)| dot(x, w) + *b)).collect()
}

/// Of x, w and b.
pub fn linear_backward<F: Float>(x: &[F], w: &[F], b: &[F], dy: &[F]) -> [Vec<F>; 3] {
    let (m, k) = (b.len(), w.len() / b.len());
    let mut grads = [vec![F::zero(); x.len()], vec![F::zero(); w.len()], vec![F::zero(); m]];
    for (at, dy) in dy.iter().enumerate() {
        let (n, o) = (at / m, at % m);
        grads[2][o] = grads[2][o] + *dy;
        for i in 0..k {
            grads[0][n * k + i] = grads[0][n * k + i] + *dy * w[o * k + i];
            grads[1][o * k + i] = grads[1][o * k + i] + *dy * x[n * k + i];
        }
    }
    grads
}

/// Between which bounds the value itself passes; its derivative is 1 there and 0 elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Bounds(pub f64, pub f64);

pub const LINEAR: Bounds = Bounds(f64::NEG_INFINITY, f64::INFINITY);
pub const RELU: Bounds = Bounds(0.0, f64::INFINITY);
pub const RELU6: Bounds = Bounds(0.0, 6.0);

impl Bounds {
    pub fn forward<F: Float>(self, x: &[F]) -> Vec<F> {
        x.iter().map(|x| x.max(f(self.0)).min(f(self.1))).collect()
    }

    pub fn backward<F: Float>(self, x: &[F], dy: &[F]) -> Vec<F> {
        let passes = |x: &F| *x > f(self.0) && *x < f(self.1);
        x.iter().zip(dy).map(|(x, dy)| if passes(x) { *dy } else { F::zero() }).collect()
    }
}

/// 1 / (1 + e^-x).
pub fn sigmoid<F: Float>(x: &[F]) -> Vec<F> {
    x.iter().map(|x| F::one() / (F::one() + (-*x).exp())).collect()
}

pub fn sigmoid_backward<F: Float>(x: &[F], dy: &[F]) -> Vec<F> {
    sigmoid(x).into_iter().zip(dy).map(|(y, dy)| y * (F::one() - y) * *dy).collect()
}

/// x / (1 + e^-x).
pub fn silu<F: Float>(x: &[F]) -> Vec<F> {
    sigmoid(x).into_iter().zip(x).map(|(part, x)| part * *x).collect()
}

pub fn silu_backward<F: Float>(x: &[F], dy: &[F]) -> Vec<F> {
    let slope = |(part, x): (F, &F)| part + *x * part * (F::one() - part);
    sigmoid(x).into_iter().zip(x).map(slope).zip(dy).map(|(slope, dy)| slope * *dy).collect()
}

/// x times the normal distribution below x.
pub fn gelu<F: Float>(x: &[F]) -> Vec<F> {
    x.iter().map(|x| *x * below(*x)).collect()
}

pub fn gelu_backward<F: Float>(x: &[F], dy: &[F]) -> Vec<F> {
    let bell = |x: F| (-x * x / f(2.0)).exp() / f(std::f64::consts::TAU.sqrt());
    x.iter().zip(dy).map(|(x, dy)| (below(*x) + *x * bell(*x)) * *dy).collect()
}

/// min(max(x + 3, 0), 6) / 6.
pub fn hard_sigmoid(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| (x + 3.0).clamp(0.0, 6.0) / 6.0).collect()
}

pub fn hard_sigmoid_backward(x: &[f64], dy: &[f64]) -> Vec<f64> {
    x.iter().zip(dy).map(|(x, dy)| if x.abs() < 3.0 { dy / 6.0 } else { 0.0 }).collect()
}

/// x times that.
pub fn hard_swish(x: &[f64]) -> Vec<f64> {
    x.iter().zip(hard_sigmoid(x)).map(|(x, part)| x * part).collect()
}

pub fn hard_swish_backward(x: &[f64], dy: &[f64]) -> Vec<f64> {
    let slope = |x: f64| if x.abs() < 3.0 { (2.0 * x + 3.0) / 6.0 } else { f64::from(u8::from(x > 0.0)) };
    x.iter().zip(dy).map(|(x, dy)| slope(*x) * dy).collect()
}

/// x / (1 + e^(-1.702 x)).
pub fn quick_gelu<F: Float>(x: &[F]) -> Vec<F> {
    let steep: Vec<F> = x.iter().map(|x| f::<F>(1.702) * *x).collect();
    silu(&steep).into_iter().map(|y| y / f(1.702)).collect()
}

pub fn quick_gelu_backward<F: Float>(x: &[F], dy: &[F]) -> Vec<F> {
    let steep: Vec<F> = x.iter().map(|x| f::<F>(1.702) * *x).collect();
    silu_backward(&steep, dy)
}

/// 1 + tanh(u), halved, of GELU's approximation, and how steep u is.
fn bent(x: f64) -> [f64; 2] {
    let peak = (2.0 / std::f64::consts::PI).sqrt();
    [0.5 * (1.0 + (peak * (x + 0.044715 * x.powi(3))).tanh()), peak * (1.0 + 3.0 * 0.044715 * x * x)]
}

/// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
pub fn tanh_gelu(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x * bent(*x)[0]).collect()
}

pub fn tanh_gelu_backward(x: &[f64], dy: &[f64]) -> Vec<f64> {
    let slope = |x: f64| {
        let [part, steep] = bent(x);
        // Of (1 + t) / 2 with t = tanh(u): (1 - t^2) / 2 times the slope of u.
        part + x * 2.0 * part * (1.0 - part) * steep
    };
    x.iter().zip(dy).map(|(x, dy)| slope(*x) * dy).collect()
}

fn below<F: Float>(x: F) -> F {
    f(0.5 * libm::erfc(-x.to_f64().unwrap() / std::f64::consts::SQRT_2))
}

/// x [n, pixels, channels] times gate [n, channels].
pub fn scale<F: Float>(x: &[F], gate: &[F], pixels: usize, channels: usize) -> Vec<F> {
    x.iter().enumerate().map(|(at, x)| *x * gate[at / (pixels * channels) * channels + at % channels]).collect()
}

pub fn gate_gradient<F: Float>(x: &[F], dy: &[F], pixels: usize, channels: usize) -> Vec<F> {
    let mut sums = vec![F::zero(); x.len() / pixels];
    for (at, (x, dy)) in x.iter().zip(dy).enumerate() {
        let place = at / (pixels * channels) * channels + at % channels;
        sums[place] = sums[place] + *x * *dy;
    }
    sums
}

/// Mean and biased variance per channel.
pub fn moments<F: Float>(x: &[F], channels: usize) -> [Vec<F>; 2] {
    let count: F = f((x.len() / channels) as f64);
    let over = |value: &dyn Fn(usize, F) -> F| -> Vec<F> {
        let mut sums = vec![F::zero(); channels];
        x.iter().enumerate().for_each(|(at, x)| sums[at % channels] = sums[at % channels] + value(at % channels, *x));
        sums.into_iter().map(|sum| sum / count).collect()
    };
    let mean = over(&|_, x| x);
    let variance = over(&|channel, x| (x - mean[channel]).powi(2));
    [mean, variance]
}

/// (x - mean) / sqrt(variance + eps) * weight + bias, per channel.
pub fn normalised<F: Float>(x: &[F], [mean, variance]: &[Vec<F>; 2], weight: &[F], bias: &[F], eps: f64) -> Vec<F> {
    let channels = weight.len();
    let value = |(at, x): (usize, &F)| {
        let c = at % channels;
        (*x - mean[c]) / (variance[c] + f(eps)).sqrt() * weight[c] + bias[c]
    };
    x.iter().enumerate().map(value).collect()
}

/// Of x, weight and bias; `of_batch`: the moments are x's own, and part of what is differentiated.
pub fn normalised_backward<F: Float>(
    x: &[F],
    [mean, variance]: &[Vec<F>; 2],
    weight: &[F],
    eps: f64,
    dy: &[F],
    of_batch: bool,
) -> [Vec<F>; 3] {
    let channels = weight.len();
    let count: F = f((x.len() / channels) as f64);
    let inverse = |c: usize| F::one() / (variance[c] + f(eps)).sqrt();
    let (mut dweight, mut dbias) = (vec![F::zero(); channels], vec![F::zero(); channels]);
    for (at, (x, dy)) in x.iter().zip(dy).enumerate() {
        let c = at % channels;
        dweight[c] = dweight[c] + *dy * (*x - mean[c]) * inverse(c);
        dbias[c] = dbias[c] + *dy;
    }
    let of_x = |(at, (x, dy)): (usize, (&F, &F))| {
        let c = at % channels;
        let normal = (*x - mean[c]) * inverse(c);
        let through = if of_batch { (dbias[c] + normal * dweight[c]) / count } else { F::zero() };
        weight[c] * inverse(c) * (*dy - through)
    };
    let dx = x.iter().zip(dy).enumerate().map(of_x).collect();
    [dx, dweight, dbias]
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reduce {
    Max,
    /// Padding is not counted.
    Avg,
    /// Padding is counted.
    AvgPadded,
}

/// Pixels along one side that a window covers, and how many positions of the padded side.
type Span = (std::ops::Range<usize>, usize);

#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub kernel: usize,
    pub stride: usize,
    pub padding: [usize; 4],
    pub ceil: bool,
}

impl Pool {
    /// PyTorch 2's rule: in ceil mode a window that would begin behind the image and the padding before it is dropped.
    pub fn spans(&self, side: usize, before: usize, after: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut start = 0;
        loop {
            let fits = start + self.kernel <= side + before + after;
            let begins = self.ceil && start < side + before && spans.len() * self.stride < side + before;
            let partly = start + self.kernel < side + before + after + self.stride;
            if !(fits || begins && partly) {
                return spans;
            }
            let end = (start + self.kernel).min(side + before + after);
            spans.push((start.saturating_sub(before)..end.saturating_sub(before).min(side), end - start));
            start += self.stride;
        }
    }

    pub fn windows(&self, x: Dims) -> [Vec<Span>; 2] {
        let [top, bottom, left, right] = self.padding;
        [self.spans(x[1], top, bottom), self.spans(x[2], left, right)]
    }
}

/// PyTorch's adaptive pooling: cells from floor(i H / G) to ceil((i + 1) H / G).
pub fn grid(side: usize, cells: usize) -> Vec<Span> {
    let cell = |i: usize| (i * side / cells)..((i + 1) * side).div_ceil(cells);
    (0..cells).map(|i| (cell(i), cell(i).len())).collect()
}

/// Calls `visit(output, inputs, divisor of an average with padding)` for every window and channel.
fn over_windows(windows: &[Vec<Span>; 2], x: Dims, mut visit: impl FnMut(usize, Vec<usize>, usize)) {
    let y = [x[0], windows[0].len(), windows[1].len(), x[3]];
    for (n, row, column, c) in positions(y) {
        let ((rows, down), (columns, across)) = (&windows[0][row], &windows[1][column]);
        let inputs = rows.clone().flat_map(|a| columns.clone().map(move |b| at(x, n, a, b, c))).collect();
        visit(at(y, n, row, column, c), inputs, down * across);
    }
}

pub fn pool<F: Float>(windows: &[Vec<Span>; 2], reduce: Reduce, x: &[F], dims: Dims) -> Vec<F> {
    let mut y = vec![F::zero(); dims[0] * windows[0].len() * windows[1].len() * dims[3]];
    over_windows(windows, dims, |o, inputs, padded| {
        let sum = inputs.iter().fold(F::zero(), |sum, i| sum + x[*i]);
        y[o] = match reduce {
            Reduce::Max => inputs.iter().fold(F::neg_infinity(), |best, i| best.max(x[*i])),
            Reduce::Avg => sum / f(inputs.len() as f64),
            Reduce::AvgPadded => sum / f(padded as f64),
        };
    });
    y
}

/// Of several equal maxima the first receives the gradient.
pub fn pool_backward<F: Float>(windows: &[Vec<Span>; 2], reduce: Reduce, x: &[F], dims: Dims, dy: &[F]) -> Vec<F> {
    let mut dx = vec![F::zero(); x.len()];
    over_windows(windows, dims, |o, inputs, padded| {
        if reduce == Reduce::Max {
            let first = inputs.iter().fold(inputs[0], |best, i| if x[*i] > x[best] { *i } else { best });
            dx[first] = dx[first] + dy[o];
            return;
        }
        let divisor: F = f(if reduce == Reduce::Avg { inputs.len() } else { padded } as f64);
        inputs.iter().for_each(|i| dx[*i] = dx[*i] + dy[o] / divisor);
    });
    dx
}

/// Mean over the weights of the labels of -sum target log softmax, with its gradient: PyTorch 2's `cross_entropy`.
pub fn cross_entropy<F: Float>(logits: &[F], labels: &[usize], smoothing: f64, weights: &[f64]) -> (F, Vec<F>) {
    let classes = weights.len();
    let whole: F = f(labels.iter().map(|label| weights[*label]).sum());
    let (mut loss, mut gradient) = (F::zero(), Vec::new());
    for (row, label) in logits.chunks(classes).zip(labels) {
        let exps: Vec<F> = row.iter().map(|x| x.exp()).collect();
        let sum = exps.iter().fold(F::zero(), |sum, exp| sum + *exp);
        let target: Vec<F> = (0..classes)
            .map(|c| f(weights[c] * (smoothing / classes as f64 + if c == *label { 1.0 - smoothing } else { 0.0 })))
            .collect();
        let all = target.iter().fold(F::zero(), |sum, target| sum + *target);
        for c in 0..classes {
            loss = loss - target[c] * (exps[c] / sum).ln() / whole;
            gradient.push((exps[c] / sum * all - target[c]) / whole);
        }
    }
    (loss, gradient)
}
