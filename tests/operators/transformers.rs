//! Layer norms, attention and rows of tokens: their definitions against finite differences, the fast loops against the
//! definitions in f64.

use proptest::prelude::*;
use tl_sweep::nn::rotary::{self, Turn};
use tl_sweep::nn::window_attention::{self, Partition};
use tl_sweep::nn::{
    attention, attention_pool, causal, layer_norm, pointwise, response_norm, swiglu, tokens, unit_norm,
};

use super::differences::check;
use super::twin::{self, size};
use super::{close, close_among, on_path, tensor, uniform};

fn normalised(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let channels = weight.len();
    let row = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / channels as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / channels as f64;
        let own = x.iter().zip(weight.iter().zip(bias));
        own.map(|(x, (weight, bias))| (x - mean) / (variance + eps).sqrt() * weight + bias).collect::<Vec<_>>()
    };
    x.chunks(channels).flat_map(row).collect()
}

/// The gradients of x, weight and bias, by the chain rule over the mean and the variance.
fn normalised_backward(x: &[f64], weight: &[f64], eps: f64, dy: &[f64]) -> [Vec<f64>; 3] {
    let (channels, count) = (weight.len(), weight.len() as f64);
    let mut found = [Vec::new(), vec![0.0; channels], vec![0.0; channels]];
    for (x, dy) in x.chunks(channels).zip(dy.chunks(channels)) {
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let slopes: Vec<f64> = dy.iter().zip(weight).map(|(dy, weight)| dy * weight).collect();
        let away: Vec<f64> = x.iter().map(|x| x - mean).collect();
        let of_variance =
            slopes.iter().zip(&away).map(|(slope, away)| slope * away).sum::<f64>() * -0.5 / (variance + eps).powf(1.5);
        let of_mean = -slopes.iter().sum::<f64>() / (variance + eps).sqrt();
        for channel in 0..channels {
            found[0].push(
                slopes[channel] / (variance + eps).sqrt() + of_variance * 2.0 * away[channel] / count + of_mean / count,
            );
            found[1][channel] += dy[channel] * away[channel] / (variance + eps).sqrt();
            found[2][channel] += dy[channel];
        }
    }
    found
}

/// x [images, pixels, channels] raised by how long its channels are.
fn raised(x: &[f64], weight: &[f64], bias: &[f64], images: usize, eps: f64) -> Vec<f64> {
    let channels = weight.len();
    let image = |x: &[f64]| {
        let length = |channel: usize| x.iter().skip(channel).step_by(channels).map(|x| x * x).sum::<f64>().sqrt();
        let lengths: Vec<f64> = (0..channels).map(length).collect();
        let mean = lengths.iter().sum::<f64>() / channels as f64 + eps;
        let own = |(at, x): (usize, &f64)| {
            x * (1.0 + weight[at % channels] * lengths[at % channels] / mean) + bias[at % channels]
        };
        x.iter().enumerate().map(own).collect::<Vec<f64>>()
    };
    x.chunks(x.len() / images).flat_map(image).collect()
}

fn units(x: &[f64], channels: usize) -> Vec<f64> {
    let unit = |x: &[f64]| x.iter().map(|own| own / dot(x, x).sqrt()).collect::<Vec<f64>>();
    x.chunks(channels).flat_map(unit).collect()
}

fn units_backward(x: &[f64], dy: &[f64], channels: usize) -> Vec<f64> {
    let row = |(x, dy): (&[f64], &[f64])| {
        let (length, along) = (dot(x, x).sqrt(), dot(x, dy));
        x.iter().zip(dy).map(|(x, dy)| (dy - x * along / length.powi(2)) / length).collect::<Vec<f64>>()
    };
    x.chunks(channels).zip(dy.chunks(channels)).flat_map(row).collect()
}

/// Queries, keys and values of one head of one image as rows.
fn head(x: &[f64], heads: usize, depth: usize, head: usize) -> [Vec<Vec<f64>>; 3] {
    let channels = heads * depth;
    [0, 1, 2].map(|kind| {
        let first = kind * channels + head * depth;
        x.chunks(3 * channels).map(|token| token[first..first + depth].to_vec()).collect()
    })
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn weights(queries: &[Vec<f64>], keys: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let row = |query: &Vec<f64>| {
        let own: Vec<f64> = keys.iter().map(|key| (dot(query, key) / (query.len() as f64).sqrt()).exp()).collect();
        let sum: f64 = own.iter().sum();
        own.into_iter().map(|weight| weight / sum).collect()
    };
    queries.iter().map(row).collect()
}

/// x [images, tokens, 3, heads, depth] to [images, tokens, heads, depth].
fn attended(x: &[f64], images: usize, heads: usize, depth: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for image in x.chunks(x.len() / images) {
        let of_heads: Vec<Vec<Vec<f64>>> = (0..heads)
            .map(|own| {
                let [queries, keys, values] = head(image, heads, depth, own);
                let sum = |weights: &Vec<f64>| {
                    (0..depth).map(|at| weights.iter().zip(&values).map(|(w, value)| w * value[at]).sum()).collect()
                };
                weights(&queries, &keys).iter().map(sum).collect()
            })
            .collect();
        for token in 0..of_heads[0].len() {
            of_heads.iter().for_each(|own| y.extend(&own[token]));
        }
    }
    y
}

/// x [images, height, width, 3, heads, depth] to [images, height, width, heads, depth], pixel by pixel: one sees another if both lie in one
/// window, counted from `shift` pixels down and to the right, and on one side of every border.
fn attended_in_windows(x: &[f64], table: &[f64], sides: [usize; 2], windows: &Partition, depth: usize) -> Vec<f64> {
    let Partition { heads, side, shift } = *windows;
    let ([height, width], channels) = (sides, windows.heads * depth);
    let moved = |at: usize, of: usize| if of > side { (at + of - shift) % of } else { at };
    let place = |pixel: usize| [moved(pixel / width, height), moved(pixel % width, width)];
    let mut y = Vec::new();
    for image in x.chunks(height * width * 3 * channels) {
        let part =
            |pixel: usize, kind: usize, head: usize| &image[(pixel * 3 + kind) * channels + head * depth..][..depth];
        for from in 0..height * width {
            let (own, [row, column]) = (place(from), [from / width, from % width]);
            let seen: Vec<(usize, usize)> = (0..height * width)
                .filter(|to| {
                    let other = place(*to);
                    let one_window = own[0] / side == other[0] / side && own[1] / side == other[1] / side;
                    one_window && row.abs_diff(to / width) < side && column.abs_diff(to % width) < side
                })
                .map(|to| (to, (row + side - 1 - to / width) * (2 * side - 1) + column + side - 1 - to % width))
                .collect();
            for head in 0..heads {
                let score = |(to, place): &(usize, usize)| {
                    let product = dot(part(from, 0, head), part(*to, 1, head));
                    (product / (depth as f64).sqrt() + table[place * heads + head]).exp()
                };
                let sum: f64 = seen.iter().map(score).sum();
                let mean =
                    |at: usize| seen.iter().map(|pair| score(pair) / sum * part(pair.0, 2, head)[at]).sum::<f64>();
                y.extend((0..depth).map(mean));
            }
        }
    }
    y
}

fn attended_backward(x: &[f64], dy: &[f64], images: usize, heads: usize, depth: usize) -> Vec<f64> {
    let (mut dx, channels) = (vec![0.0; x.len()], heads * depth);
    let (size, tokens) = (x.len() / images, x.len() / images / 3 / channels);
    for image in 0..images {
        for own in 0..heads {
            let [queries, keys, values] = head(&x[image * size..][..size], heads, depth, own);
            let weights = weights(&queries, &keys);
            for from in 0..tokens {
                let dy = &dy[(image * tokens + from) * channels + own * depth..][..depth];
                let slopes: Vec<f64> = values.iter().map(|value| dot(dy, value)).collect();
                let mean = dot(&weights[from], &slopes);
                for to in 0..tokens {
                    let slope = weights[from][to] * (slopes[to] - mean) / (depth as f64).sqrt();
                    let place =
                        |token: usize, kind: usize| image * size + token * 3 * channels + kind * channels + own * depth;
                    for at in 0..depth {
                        dx[place(from, 0) + at] += slope * keys[to][at];
                        dx[place(to, 1) + at] += slope * queries[from][at];
                        dx[place(to, 2) + at] += weights[from][to] * dy[at];
                    }
                }
            }
        }
    }
    dx
}

/// Queries, keys and values [images, tokens, 3, heads, depth] with biases of queries and values; queries and keys of patches turned.
fn turned(x: &[f64], biases: [&[f64]; 2], heads: usize, skip: usize, side: usize) -> Vec<f64> {
    let channels = biases[0].len();
    let depth = channels / heads;
    let mut y = x.to_vec();
    for (row, y) in y.chunks_mut(channels).enumerate() {
        let (kind, token) = (row % 3, row / 3 % (skip + side * side));
        if kind != 1 {
            y.iter_mut().zip(biases[kind / 2]).for_each(|(y, bias)| *y += bias);
        }
        if kind == 2 || token < skip {
            continue;
        }
        let patch = token - skip;
        for head in y.chunks_mut(depth) {
            let before = head.to_vec();
            for at in 0..depth / 2 {
                let (axis, number) = (at / (depth / 4), at % (depth / 4));
                let place = [patch / side, patch % side][axis] as f64;
                let centre = (2.0 * place + 1.0) / side as f64 - 1.0;
                let angle = std::f64::consts::TAU * centre / 100f64.powf(number as f64 / (depth / 4) as f64);
                let (a, b) = (before[at], before[at + depth / 2]);
                (head[at], head[at + depth / 2]) =
                    (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin());
            }
        }
    }
    y
}

/// Queries [images, heads, depth], keys and values [images, tokens, 2, heads, depth].
fn pooled(queries: &[f64], keys: &[f64], images: usize, heads: usize) -> Vec<f64> {
    let channels = queries.len() / images;
    let depth = channels / heads;
    let mut y = vec![0.0; queries.len()];
    for (unit, y) in y.chunks_mut(depth).enumerate() {
        let rows = keys.chunks(keys.len() / images).nth(unit / heads).unwrap().chunks(2 * channels);
        let first = unit % heads * depth;
        let own: Vec<Vec<f64>> = rows.clone().map(|row| row[first..][..depth].to_vec()).collect();
        let weights = weights(&[queries[unit * depth..][..depth].to_vec()], &own).remove(0);
        for (weight, row) in weights.iter().zip(rows) {
            y.iter_mut().zip(&row[channels + first..]).for_each(|(y, value)| *y += weight * value);
        }
    }
    y
}

/// Differences of sum(dy * output) by one input, where a definition's gradient is not written down.
fn slopes(input: &[f64], dy: &[f64], output: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let total = |input: &[f64]| output(input).iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>();
    let moved = |at: usize, by: f64| {
        let mut input = input.to_vec();
        input[at] += by;
        total(&input)
    };
    (0..input.len()).map(|at| (moved(at, 1e-5) - moved(at, -1e-5)) / 2e-5).collect()
}

#[test]
fn definitions_have_the_slopes_of_finite_differences() {
    let (x, weight, bias, dy) = (uniform(40, 1), uniform(8, 2), uniform(8, 3), uniform(40, 4));
    let gradients = normalised_backward(&x, &weight, 1e-3, &dy);
    let inputs = [x, weight, bias];
    check("layer norm", &inputs, &gradients, |i| normalised(&i[0], &i[1], &i[2], 1e-3), &dy);
    let (x, dy) = (uniform(2 * 5 * 3 * 6, 1), uniform(2 * 5 * 6, 2));
    let gradient = attended_backward(&x, &dy, 2, 2, 3);
    check("attention", &[x], &[gradient], |i| attended(&i[0], 2, 2, 3), &dy);
    let (x, dy) = (uniform(24, 1), uniform(24, 2));
    let gradient = units_backward(&x, &dy, 8);
    check("unit norm", &[x], &[gradient], |i| units(&i[0], 8), &dy);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rotary_positions_of_any_shape(images in 1usize..3, side in 1usize..5, skip in 0usize..4, heads in 1usize..4, quarter in 1usize..9, seed in 0u64..1000) {
        on_path();
        let (depth, tokens) = (4 * quarter, skip + side * side);
        let (channels, dims) = (heads * depth, [images, tokens, 1, 3 * heads * depth]);
        let (x, dy) = (uniform(size(&dims), seed), uniform(size(&dims), seed + 1));
        let biases = [uniform(channels, seed + 2), uniform(channels, seed + 3)];
        let table: Vec<f64> = rotary::table(side, depth, 100.0).into_iter().map(f64::from).collect();
        let table = tensor(&table, &[side * side, depth / 2, 2]);
        let turn = Turn { heads, skip, table: &table };
        let [of_queries, of_values] = [0, 1].map(|which| tensor(&biases[which], &[channels]));
        let y = rotary::forward(&tensor(&x, &dims), [&of_queries, &of_values], &turn).unwrap();
        prop_assert_eq!(y.dims(), &dims);
        close_among("y", &y, &turned(&x, [&biases[0], &biases[1]], heads, skip, side), 2.0);
        // What was turned is turned back: a rotation's gradient is its inverse.
        let none = vec![0.0; channels];
        let dx = rotary::backward(&tensor(&turned(&dy, [&none, &none], heads, skip, side), &dims), &turn).unwrap();
        close_among("dx", &dx, &dy, 2.0);
        let sums = |kind: usize| {
            let of = |channel: usize| dy.iter().skip(kind * channels + channel).step_by(3 * channels).sum::<f64>();
            (0..channels).map(of).collect::<Vec<f64>>()
        };
        let [dq, dv] = rotary::bias_gradients(&dx).unwrap();
        close_among("of queries", &dq, &sums(0), (images * tokens) as f64 / 2.0);
        close_among("of values", &dv, &sums(2), (images * tokens) as f64 / 2.0);
        let other = Turn { skip: skip + 1, ..turn };
        prop_assert!(rotary::backward(&dx, &other).is_err());
    }

    #[test]
    fn attention_of_one_token_of_any_shape(images in 1usize..3, count in 1usize..9, heads in 1usize..4, depth in 1usize..20, seed in 0u64..1000) {
        on_path();
        let channels = heads * depth;
        let (dims, rows) = ([images, 1, 1, channels], [images, count, 1, 2 * channels]);
        let queries: Vec<f64> = uniform(size(&dims), seed).iter().map(|x| 3.0 * x).collect();
        let (keys, dy) = (uniform(size(&rows), seed + 1), uniform(size(&dims), seed + 2));
        let (asked, among) = (tensor(&queries, &dims), tensor(&keys, &rows));
        let y = attention_pool::forward(&asked, &among, heads).unwrap();
        prop_assert_eq!(y.dims(), &dims);
        close_among("y", &y, &pooled(&queries, &keys, images, heads), 3.0);
        let [dq, dk] = attention_pool::backward(&asked, &among, &tensor(&dy, &dims), heads).unwrap();
        close_among("queries", &dq, &slopes(&queries, &dy, |queries| pooled(queries, &keys, images, heads)), 10.0);
        close_among("keys and values", &dk, &slopes(&keys, &dy, |keys| pooled(&queries, keys, images, heads)), 10.0);
        prop_assert!(attention_pool::forward(&among, &among, heads).is_err());
    }

    #[test]
    fn gated_units_of_any_shape(count in 1usize..40_000, seed in 0u64..1000) {
        on_path();
        let by: Vec<f64> = uniform(count, seed).iter().map(|x| f64::from((8.0 * x) as f32)).collect();
        let (x, dy) = (uniform(count, seed + 1), uniform(count, seed + 2));
        let [own, given, gradient] = [&by, &x, &dy].map(|values| tensor(values, &[count]));
        let silu = twin::silu(&by);
        let product = |left: &[f64], right: &[f64]| left.iter().zip(right).map(|(l, r)| l * r).collect::<Vec<f64>>();
        close_among("y", &swiglu::forward(&own, &given).unwrap(), &product(&silu, &x), 4.0);
        let [dgate, dx] = swiglu::backward(&own, &given, &gradient).unwrap();
        close_among("gate", &dgate, &twin::silu_backward(&by, &product(&dy, &x)), 4.0);
        close_among("x", &dx, &product(&silu, &dy), 4.0);
    }

    #[test]
    fn response_norms_of_any_shape(images in 1usize..4, side in 1usize..12, channels in 1usize..40, seed in 0u64..1000) {
        on_path();
        let dims = [images, side, side, channels];
        let (x, dy) = (uniform(size(&dims), seed), uniform(size(&dims), seed + 1));
        let (weight, bias) = (uniform(channels, seed + 2), uniform(channels, seed + 3));
        let of_channels = |values: &[f64]| tensor(values, &[channels]);
        let y = response_norm::forward(&tensor(&x, &dims), &of_channels(&weight), &of_channels(&bias), 1e-3).unwrap();
        close_among("y", &y, &raised(&x, &weight, &bias, images, 1e-3), 2.0);
        let (dx, [dweight, dbias]) =
            response_norm::backward(&tensor(&x, &dims), &of_channels(&weight), 1e-3, &tensor(&dy, &dims)).unwrap();
        let pixels = (images * side * side) as f64;
        close_among("dx", &dx, &slopes(&x, &dy, |x| raised(x, &weight, &bias, images, 1e-3)), 20.0);
        close_among("weight", &dweight, &slopes(&weight, &dy, |weight| raised(&x, weight, &bias, images, 1e-3)), pixels.max(20.0));
        close_among("bias", &dbias, &slopes(&bias, &dy, |bias| raised(&x, &weight, bias, images, 1e-3)), pixels.max(20.0));
    }

    #[test]
    fn unit_norms_of_any_shape(images in 1usize..4, pixels in 1usize..40, channels in 1usize..150, seed in 0u64..1000) {
        on_path();
        let dims = [images, pixels, 1, channels];
        let (x, dy) = (uniform(size(&dims), seed), uniform(size(&dims), seed + 1));
        let y = unit_norm::forward(&tensor(&x, &dims)).unwrap();
        close_among("y", &y, &units(&x, channels), 2.0);
        let dx = unit_norm::backward(&tensor(&x, &dims), &tensor(&dy, &dims)).unwrap();
        let expected = units_backward(&x, &dy, channels);
        // A short vector's gradient is large.
        let largest = expected.iter().fold(1.0, |most: f64, slope| most.max(slope.abs()));
        close_among("dx", &dx, &expected, largest);
    }

    #[test]
    fn attention_to_what_came_before(texts in 1usize..3, count in 1usize..9, heads in 1usize..4, depth in 1usize..20, seed in 0u64..1000) {
        let dims = [texts, count, 1, 3 * heads * depth];
        let x: Vec<f64> = uniform(size(&dims), seed).iter().map(|x| f64::from((3.0 * x) as f32)).collect();
        let cpu = |values: &[f64], dims: &[usize]| {
            let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
            candle_core::Tensor::from_vec(values, dims, &candle_core::Device::Cpu).unwrap()
        };
        let y = causal::forward(&cpu(&x, &dims), heads).unwrap();
        prop_assert_eq!(y.dims(), &[texts, count, 1, heads * depth]);
        // The last token of every beginning sees what attention sees of that beginning.
        let (row, channels) = (3 * heads * depth, heads * depth);
        let mut expected = Vec::new();
        for text in x.chunks(count * row) {
            for end in 1..=count {
                let seen = attended(&text[..end * row], 1, heads, depth);
                expected.extend_from_slice(&seen[(end - 1) * channels..]);
            }
        }
        let found: Vec<f64> = y.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
        let off = found.iter().zip(&expected).map(|(own, there)| (own - there).abs()).fold(0.0, f64::max);
        prop_assert!(off < 3e-5, "{}", off);
    }

    #[test]
    fn layer_norms_of_any_shape(images in 1usize..4, pixels in 1usize..40, channels in 2usize..150, seed in 0u64..1000) {
        on_path();
        let (dims, eps) = ([images, pixels, 1, channels], 1e-3);
        let (x, dy) = (uniform(size(&dims), seed), uniform(size(&dims), seed + 1));
        // A mean that is far from zero costs digits of f32, not of the result's scale.
        let x: Vec<f64> = x.iter().map(|x| f64::from((x + 2.0) as f32)).collect();
        let (weight, bias) = (uniform(channels, seed + 2), uniform(channels, seed + 3));
        let of_channels = |values: &[f64]| tensor(values, &[channels]);
        let (image, gradient) = (tensor(&x, &dims), tensor(&dy, &dims));
        let y = layer_norm::forward(&image, &of_channels(&weight), &of_channels(&bias), eps).unwrap();
        close_among("y", &y, &normalised(&x, &weight, &bias, eps), 4.0);
        let (dx, [dweight, dbias]) = layer_norm::backward(&image, &of_channels(&weight), eps, &gradient).unwrap();
        let [expected, of_weight, of_bias] = normalised_backward(&x, &weight, eps, &dy);
        close_among("dx", &dx, &expected, 30.0);
        close_among("dweight", &dweight, &of_weight, (images * pixels) as f64 / 4.0);
        close_among("dbias", &dbias, &of_bias, (images * pixels) as f64 / 4.0);
    }

    #[test]
    fn layers_on_every_pixel_of_any_shape(images in 1usize..4, pixels in 1usize..400, channels in 1usize..60, out in 1usize..140, seed in 0u64..1000) {
        on_path();
        let (dims, rows) = ([images, pixels, 1, channels], images * pixels);
        let (x, w, b) = (uniform(size(&dims), seed), uniform(out * channels, seed + 1), uniform(out, seed + 2));
        let dy = uniform(rows * out, seed + 3);
        let (image, weights) = (tensor(&x, &dims), tensor(&w, &[out, channels]));
        let y = pointwise::forward(&image, &weights, Some(&tensor(&b, &[out]))).unwrap();
        close_among("y", &y, &twin::linear(&x, &w, &b), channels as f64 / 4.0);
        let gradient = tensor(&dy, &[images, pixels, 1, out]);
        let [dx, dw] = pointwise::backward(Some(&image), &weights, &gradient, true).unwrap();
        let [expected, of_weights, _] = twin::linear_backward(&x, &w, &b, &dy);
        close_among("dx", &dx.unwrap(), &expected, out as f64 / 4.0);
        close_among("dw", &dw.unwrap(), &of_weights, rows as f64 / 4.0);
        let [same, none] = pointwise::backward(None, &weights, &gradient, true).unwrap();
        prop_assert!(same.is_some() && none.is_none());
        let plain = pointwise::forward(&image, &weights, None).unwrap();
        close_among("without a bias", &plain, &twin::linear(&x, &w, &vec![0.0; out]), channels as f64 / 4.0);
    }

    #[test]
    fn attention_of_any_shape(images in 1usize..4, count in 1usize..70, heads in 1usize..4, depth in 1usize..40, seed in 0u64..1000) {
        on_path();
        let (dims, out) = ([images, count, 1, 3 * heads * depth], [images, count, 1, heads * depth]);
        let x: Vec<f64> = uniform(size(&dims), seed).iter().map(|x| 3.0 * x).collect();
        let dy = uniform(size(&out), seed + 1);
        let (image, gradient) = (tensor(&x, &dims), tensor(&dy, &out));
        let y = attention::forward(&image, heads).unwrap();
        prop_assert_eq!(y.dims(), &out);
        close_among("y", &y, &attended(&x, images, heads, depth), 3.0);
        let dx = attention::backward(&image, &gradient, heads).unwrap();
        close_among("dx", &dx, &attended_backward(&x, &dy, images, heads, depth), 10.0);
    }

    #[test]
    fn attention_in_windows_of_any_shape(images in 1usize..3, grid in (1usize..4, 1usize..3), side in 1usize..4, shift in 0usize..3, heads in 1usize..3, depth in 1usize..9, seed in 0u64..1000) {
        on_path();
        let (sides, shift) = ([grid.0 * side, grid.1 * side], shift.min(side - 1));
        let windows = Partition { heads, side, shift };
        let dims = [images, sides[0], sides[1], 3 * heads * depth];
        let (places, out) = ((2 * side - 1) * (2 * side - 1), [images, sides[0], sides[1], heads * depth]);
        let (x, dy) = (uniform(size(&dims), seed), uniform(size(&out), seed + 1));
        let table: Vec<f64> = uniform(places * heads, seed + 2).iter().map(|bias| 3.0 * bias).collect();
        let (map, own, gradient) = (tensor(&x, &dims), tensor(&table, &[places, heads]), tensor(&dy, &out));
        let y = window_attention::forward(&map, &own, &windows).unwrap();
        prop_assert_eq!(y.dims(), &out);
        close_among("y", &y, &attended_in_windows(&x, &table, sides, &windows, depth), 3.0);
        let (dx, dtable) = window_attention::backward(&map, &own, &gradient, &windows, true).unwrap();
        let slope = |x: &[f64], table: &[f64]| attended_in_windows(x, table, sides, &windows, depth);
        close_among("dx", &dx, &slopes(&x, &dy, |x| slope(x, &table)), 20.0);
        let many = (images * sides[0] * sides[1]) as f64;
        close_among("dtable", &dtable.unwrap(), &slopes(&table, &dy, |table| slope(&x, table)), many.max(20.0));
        let other = Partition { side: side + 1, ..windows };
        prop_assert!(window_attention::forward(&map, &own, &other).is_err());
        prop_assert!(window_attention::backward(&map, &own, &map, &windows, true).is_err());
    }

    #[test]
    fn tokens_are_put_in_and_taken_out(images in 1usize..4, height in 1usize..6, width in 1usize..6, count in 1usize..5, channels in 1usize..40, at in 0usize..9) {
        on_path();
        let pixels = height * width;
        let at = at.min(pixels);
        let dims = [images, height, width, channels];
        let (x, learned) = (uniform(size(&dims), 1), uniform(count * channels, 2));
        let positions = uniform((pixels + count) * channels, 3);
        let rows = |image: usize| {
            let own = &x[image * pixels * channels..][..pixels * channels];
            [&own[..at * channels], &learned, &own[at * channels..]].concat()
        };
        let all: Vec<f64> = (0..images).flat_map(rows).collect();
        let y = tokens::insert(&tensor(&x, &dims), &tensor(&learned, &[1, count, channels]), at).unwrap();
        prop_assert_eq!(y.dims(), &[images, pixels + count, 1, channels]);
        close("inserted", &y, &all);
        let placed = tokens::place(&y, &tensor(&positions, &[1, pixels + count, channels])).unwrap();
        let sums: Vec<f64> = all.iter().zip(positions.iter().cycle()).map(|(x, position)| x + position).collect();
        close("placed", &placed, &sums);
        let first = tokens::take(&y, at, count).unwrap();
        close("taken", &first, &learned.repeat(images));

        // What goes in comes back: of a sum of squares, each number's gradient is twice itself.
        let [dx, dlearned] = tokens::insert_backward(&y, at, count).unwrap();
        close("dx", &dx, &x);
        close_among("dlearned", &dlearned, &learned.iter().map(|x| x * images as f64).collect::<Vec<_>>(), images as f64);
        let over: Vec<f64> = (0..positions.len()).map(|place| all.iter().skip(place).step_by(positions.len()).sum()).collect();
        close_among("dpositions", &tokens::place_gradient(&y).unwrap(), &over, images as f64);
        let back = tokens::take_backward(&first, at, pixels + count).unwrap();
        let mut expected = vec![0.0; all.len()];
        for image in expected.chunks_mut((pixels + count) * channels) {
            image[at * channels..][..learned.len()].copy_from_slice(&learned);
        }
        close("taken back", &back, &expected);
    }
}

#[test]
fn what_fits_nothing_is_refused() {
    let x = tensor(&uniform(2 * 4 * 12, 1), &[2, 4, 1, 12]);
    assert!(attention::forward(&x, 0).is_err() && attention::forward(&x, 3).is_err());
    assert!(attention::backward(&x, &x, 2).is_err());
    assert!(window_attention::merge(&tensor(&uniform(60, 1), &[1, 4, 5, 3])).is_err());
    assert!(window_attention::merge_backward(&tensor(&uniform(60, 1), &[1, 4, 5, 3])).is_err());
    let weight = tensor(&uniform(11, 2), &[11]);
    assert!(layer_norm::forward(&x, &weight, &weight, 1e-6).is_err());
    assert!(tokens::insert(&x, &tensor(&uniform(12, 3), &[1, 1, 12]), 5).is_err());
    assert!(tokens::place(&x, &tensor(&uniform(36, 3), &[1, 3, 12])).is_err());
    assert!(tokens::take(&x, 4, 1).is_err() && tokens::take(&x, 1, 4).is_err());
}
