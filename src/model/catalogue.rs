//! Weight files that are known by their content: which network they fit and how their inputs were prepared.

use crate::recipe::Preprocess;

/// A weight file that this version knows. Identity is the content, never the name.
pub struct Known {
    pub name: &'static str,
    pub sha256: &'static str,
    pub arch: &'static str,
    pub width: f64,
    pub input: usize,
    pub preprocess: Preprocess,
    /// Where the numbers come from.
    pub lineage: &'static str,
}

pub static KNOWN: &[Known] = &[
    Known {
        name: "cifar10_resnet20",
        sha256: "6231d5cb53f0db812044fdc53f4d4b9003029aeee803b2d02192e53615b18a26",
        arch: "resnet20",
        width: 1.0,
        input: 32,
        preprocess: Preprocess::Torch,
        lineage: "CIFAR-10; akamaster/pytorch_resnet_cifar10 resnet20-12fca82f.th; BSD-2-Clause",
    },
    Known {
        name: "cifar10_resnet56",
        sha256: "d31d32b09458ebc4acd03877fbb3a59c3bc04d1df7fcb3a9a6d90fb019ff5bce",
        arch: "resnet56",
        width: 1.0,
        input: 32,
        preprocess: Preprocess::Torch,
        lineage: "CIFAR-10; akamaster/pytorch_resnet_cifar10 resnet56-4bfd9763.th; BSD-2-Clause",
    },
    Known {
        name: "mobilenet_v1_0.25_128_dequant",
        sha256: "cb73394153e2503ded36b8c4c6cc2b0721de0960382d23238460e1919d83b5f6",
        arch: "mobilenet_v1",
        width: 0.25,
        input: 128,
        preprocess: Preprocess::Tf,
        lineage: "ImageNet-1k; TensorFlow MobileNet, uint8 quantised, read back as float; Apache-2.0",
    },
    Known {
        name: "mobilenet_v1_0.5_160_dequant",
        sha256: "0072bad53cf4cd79b268aab0c7e8224ac5f29807c2f08e61ba4e3419fd22c63d",
        arch: "mobilenet_v1",
        width: 0.5,
        input: 160,
        preprocess: Preprocess::Tf,
        lineage: "ImageNet-1k; TensorFlow MobileNet, uint8 quantised, read back as float; Apache-2.0",
    },
    Known {
        name: "mobilenet_v1_0.75_224_float",
        sha256: "9658116b1155835a00047387745f5d87b2351ff6f6eb25ebe32ec4092b863a0b",
        arch: "mobilenet_v1",
        width: 0.75,
        input: 224,
        preprocess: Preprocess::Tf,
        lineage: "ImageNet-1k; Keras MobileNet by way of TensorFlow.js; Apache-2.0",
    },
    Known {
        name: "mobilenet_v2_1.0_224_dequant_tf2ptq",
        sha256: "36b68937757355b877f3705ecb9197f5fb432576ace4ffb01a1e2d0c13d9e467",
        arch: "mobilenet_v2_tf",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Tf,
        lineage: "ImageNet-1k; TensorFlow MobileNet V2, int8 quantised, read back as float; Apache-2.0",
    },
    Known {
        name: "squeezenet1_0_deepcompression",
        sha256: "d778507c89169e8ae4f6c2b7f32c20bbab1400f701c80b84edc8863e23ba371f",
        arch: "squeezenet1_0",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Torch,
        lineage: "ImageNet-1k; Deep Compression's pruned Caffe model; BSD-2-Clause",
    },
];

/// The known file with these bytes.
pub fn by_content(sha256: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.sha256 == sha256)
}
