//! Layer norms, attention and rows of tokens: their definitions against finite differences, the fast loops against the
//! definitions in f64.

use proptest::prelude::*;
use tl_sweep::nn::{attention, layer_norm, pointwise, tokens};

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

#[test]
fn definitions_have_the_slopes_of_finite_differences() {
    let (x, weight, bias, dy) = (uniform(40, 1), uniform(8, 2), uniform(8, 3), uniform(40, 4));
    let gradients = normalised_backward(&x, &weight, 1e-3, &dy);
    let inputs = [x, weight, bias];
    check("layer norm", &inputs, &gradients, |i| normalised(&i[0], &i[1], &i[2], 1e-3), &dy);
    let (x, dy) = (uniform(2 * 5 * 3 * 6, 1), uniform(2 * 5 * 6, 2));
    let gradient = attended_backward(&x, &dy, 2, 2, 3);
    check("attention", &[x], &[gradient], |i| attended(&i[0], 2, 2, 3), &dy);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

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
        let y = pointwise::forward(&image, &weights, &tensor(&b, &[out])).unwrap();
        close_among("y", &y, &twin::linear(&x, &w, &b), channels as f64 / 4.0);
        let gradient = tensor(&dy, &[images, pixels, 1, out]);
        let (dx, own) = pointwise::backward(Some(&image), &weights, &gradient, true).unwrap();
        let [expected, of_weights, of_bias] = twin::linear_backward(&x, &w, &b, &dy);
        close_among("dx", &dx.unwrap(), &expected, out as f64 / 4.0);
        let [dw, db] = own.unwrap();
        close_among("dw", &dw, &of_weights, rows as f64 / 4.0);
        close_among("db", &db, &of_bias, rows as f64 / 4.0);
        let (none, own) = pointwise::backward(None, &weights, &gradient, true).unwrap();
        prop_assert!(none.is_some() && own.is_none());
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
    let weight = tensor(&uniform(11, 2), &[11]);
    assert!(layer_norm::forward(&x, &weight, &weight, 1e-6).is_err());
    assert!(tokens::insert(&x, &tensor(&uniform(12, 3), &[1, 1, 12]), 5).is_err());
    assert!(tokens::place(&x, &tensor(&uniform(36, 3), &[1, 3, 12])).is_err());
    assert!(tokens::take(&x, 4, 1).is_err() && tokens::take(&x, 1, 4).is_err());
}
