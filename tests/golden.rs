//! Real weight files give the logits that an independent implementation gave.

use candle_core::{Device, Tensor};
use tl_sweep::exec::{Mode, Network};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::catalogue::{KNOWN, identify};
use tl_sweep::model::weights::Weights;

use crate::builder::shared;

#[test]
fn real_weights_give_their_golden_logits() {
    let Some(folder) = shared("weights") else { return };
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("golden_logits.json")).unwrap()).unwrap();
    let mut seen = 0;
    for known in KNOWN.iter() {
        let path = folder.join(format!("{}{}", known.name, known.ending));
        // The original .th files are to give what their conversions give.
        let name = match known.name {
            "resnet20-12fca82f" => "cifar10_resnet20",
            "resnet56-4bfd9763" => "cifar10_resnet56",
            name => name,
        };
        let Some(expected) = golden.get(name).filter(|_| path.exists()) else { continue };
        seen += 1;
        assert_eq!(identify(&path).unwrap().known.map(|found| found.name), Some(known.name));
        let arch = Arch::new(known.arch, known.input, known.width);
        let (weights, fitted) = Weights::whole(&path, &arch).unwrap();
        let network = Network::new(fitted.graph, &weights, &Device::Cpu).unwrap();
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
        for (found, wanted) in logits.iter().zip(expected["logits_first8"].as_array().unwrap()) {
            let wanted = wanted.as_f64().unwrap() as f32;
            assert!((found - wanted).abs() < 1e-3, "{}: {:?} against {expected}", known.name, &logits[..8]);
        }
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!(best as u64, expected["argmax"].as_u64().unwrap(), "{}", known.name);
    }
    assert_eq!(seen, 9, "seven converted files and two as they were published");
}
