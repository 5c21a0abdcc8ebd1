//! Real weight files give the logits that an independent implementation gave.

use candle_core::{Device, Tensor};
use tl_sweep::exec::{Mode, Network};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::catalogue::KNOWN;
use tl_sweep::model::weights::Weights;

use crate::builder::shared;

#[test]
fn real_weights_give_their_golden_logits() {
    let Some(folder) = shared("weights") else { return };
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("golden_logits.json")).unwrap()).unwrap();
    for known in KNOWN {
        let weights = Weights::read(&folder.join(format!("{}.safetensors", known.name))).unwrap();
        let arch = Arch::new(known.arch, known.input, known.width);
        let classes = weights.classes(&arch.graph(10).unwrap()).unwrap();
        tl_sweep::train::check_weights(&folder.join(format!("{}.safetensors", known.name)), &arch).unwrap();
        let network = Network::new(arch.graph(classes).unwrap(), &weights, &Device::Cpu).unwrap();
        let side = known.input;
        let pixel = |at: usize| {
            let (channel, y, x) = (at / (side * side), at / side % side, at % side);
            (0.1 * y as f32 + 0.2 * x as f32 + channel as f32).sin()
        };
        let x =
            Tensor::from_vec((0..3 * side * side).map(pixel).collect::<Vec<f32>>(), (1, 3, side, side), &Device::Cpu)
                .unwrap();
        let logits = network
            .forward(&x, Mode::Evaluate)
            .unwrap()
            .result()
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let expected = &golden[known.name];
        for (found, expected) in logits.iter().zip(expected["logits_first8"].as_array().unwrap()) {
            let expected = expected.as_f64().unwrap() as f32;
            assert!(
                (found - expected).abs() < 1e-3,
                "{}: {:?} against {}",
                known.name,
                &logits[..8],
                golden[known.name]["logits_first8"]
            );
        }
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!(best as u64, expected["argmax"].as_u64().unwrap(), "{}", known.name);
    }
}
