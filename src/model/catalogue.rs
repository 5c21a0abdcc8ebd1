//! Weight files that are known by their content: which network they fit, how their inputs were prepared, where they are.
//! MD5 sums and addresses are those of keras/src/applications (Keras 3.15), hash prefixes and addresses those of
//! torchvision 0.29.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use sha2::Digest;

use crate::frame::Resize;
use crate::recipe::Preprocess;

/// What is published about a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha256(&'static str),
    /// The first digits of the SHA-256, as PyTorch puts them into file names.
    Sha256Prefix(&'static str),
    Md5(&'static str),
    /// The file is listed for its address; its content cannot be told.
    Unpublished,
}

/// A weight file that this version knows. Identity is the content, never the name.
pub struct Known {
    pub name: &'static str,
    /// Of its file name.
    pub ending: &'static str,
    pub hash: Hash,
    pub arch: &'static str,
    pub width: f64,
    pub input: usize,
    pub preprocess: Preprocess,
    /// How its authors brought images to the input's size when they measured it.
    pub resize: Resize,
    /// Where the numbers come from.
    pub lineage: &'static str,
    /// Where the file is, if it is anywhere as it is.
    pub url: Option<&'static str>,
}

/// What a file on disk is.
pub struct Identity {
    pub sha256: String,
    pub md5: String,
    pub bytes: u64,
    pub known: Option<&'static Known>,
}

/// Reads a file once, in pieces, and looks its hashes up.
///
/// # Errors
/// The file cannot be read.
pub fn identify(path: &Path) -> anyhow::Result<Identity> {
    let shown = || format!("cannot read the weights '{}'", path.display());
    let mut file = std::fs::File::open(path).with_context(shown)?;
    let (mut sha, mut md5) = (sha2::Sha256::new(), md5::Md5::new());
    let mut piece = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut piece).with_context(shown)?;
        if read == 0 {
            break;
        }
        sha.update(&piece[..read]);
        md5::Digest::update(&mut md5, &piece[..read]);
        bytes += read as u64;
    }
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (sha256, md5) = (hex(&sha.finalize()), hex(&md5::Digest::finalize(md5)));
    let known = KNOWN.iter().find(|known| match known.hash {
        Hash::Sha256(hash) => hash == sha256,
        Hash::Sha256Prefix(prefix) => sha256.starts_with(prefix),
        Hash::Md5(hash) => hash == md5,
        Hash::Unpublished => false,
    });
    Ok(Identity { sha256, md5, bytes, known })
}

impl Known {
    /// Where the file is and what is published about its bytes.
    pub fn source(&self) -> String {
        let hash = match self.hash {
            Hash::Sha256(hash) => format!("sha256 {hash}"),
            Hash::Sha256Prefix(prefix) => format!("sha256 {prefix}..."),
            Hash::Md5(hash) => format!("md5 {hash}"),
            Hash::Unpublished => "no hash is published".to_owned(),
        };
        self.url.map_or_else(|| hash.clone(), |url| format!("{url} ({hash})"))
    }

    /// What a person must do to have this file in `folder`.
    pub fn how_to_get(&self, folder: &Path) -> String {
        let place = folder.join(format!("{}{}", self.name, self.ending));
        match self.url {
            Some(_) => format!("fetch {} and put it at '{}'", self.source(), place.display()),
            None => format!(
                "put {}{} ({}; {}) into '{}'",
                self.name,
                self.ending,
                self.lineage,
                self.source(),
                folder.display()
            ),
        }
    }
}

pub static KNOWN: &[Known] = &[
    Known {
        name: "cifar10_resnet20",
        ending: ".safetensors",
        hash: Hash::Sha256("6231d5cb53f0db812044fdc53f4d4b9003029aeee803b2d02192e53615b18a26"),
        arch: "resnet20",
        width: 1.0,
        input: 32,
        preprocess: Preprocess::Torch,
        resize: Resize::WHOLE,
        lineage: "CIFAR-10; akamaster/pytorch_resnet_cifar10 resnet20-12fca82f.th; BSD-2-Clause",
        url: None,
    },
    Known {
        name: "cifar10_resnet56",
        ending: ".safetensors",
        hash: Hash::Sha256("d31d32b09458ebc4acd03877fbb3a59c3bc04d1df7fcb3a9a6d90fb019ff5bce"),
        arch: "resnet56",
        width: 1.0,
        input: 32,
        preprocess: Preprocess::Torch,
        resize: Resize::WHOLE,
        lineage: "CIFAR-10; akamaster/pytorch_resnet_cifar10 resnet56-4bfd9763.th; BSD-2-Clause",
        url: None,
    },
    Known {
        name: "mobilenet_v1_0.25_128_dequant",
        ending: ".safetensors",
        hash: Hash::Sha256("cb73394153e2503ded36b8c4c6cc2b0721de0960382d23238460e1919d83b5f6"),
        arch: "mobilenet_v1",
        width: 0.25,
        input: 128,
        preprocess: Preprocess::Tf,
        resize: Resize::WHOLE,
        lineage: "ImageNet-1k; TensorFlow MobileNet, uint8 quantised, read back as float; Apache-2.0",
        url: None,
    },
    Known {
        name: "mobilenet_v1_0.5_160_dequant",
        ending: ".safetensors",
        hash: Hash::Sha256("0072bad53cf4cd79b268aab0c7e8224ac5f29807c2f08e61ba4e3419fd22c63d"),
        arch: "mobilenet_v1",
        width: 0.5,
        input: 160,
        preprocess: Preprocess::Tf,
        resize: Resize::WHOLE,
        lineage: "ImageNet-1k; TensorFlow MobileNet, uint8 quantised, read back as float; Apache-2.0",
        url: None,
    },
    Known {
        name: "mobilenet_v1_0.75_224_float",
        ending: ".safetensors",
        hash: Hash::Sha256("9658116b1155835a00047387745f5d87b2351ff6f6eb25ebe32ec4092b863a0b"),
        arch: "mobilenet_v1",
        width: 0.75,
        input: 224,
        preprocess: Preprocess::Tf,
        resize: Resize::WHOLE,
        lineage: "ImageNet-1k; Keras MobileNet by way of TensorFlow.js; Apache-2.0",
        url: None,
    },
    Known {
        name: "mobilenet_v2_1.0_224_dequant_tf2ptq",
        ending: ".safetensors",
        hash: Hash::Sha256("36b68937757355b877f3705ecb9197f5fb432576ace4ffb01a1e2d0c13d9e467"),
        arch: "mobilenet_v2_tf",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Tf,
        resize: Resize::WHOLE,
        lineage: "ImageNet-1k; TensorFlow MobileNet V2, int8 quantised, read back as float; Apache-2.0",
        url: None,
    },
    Known {
        name: "squeezenet1_0_deepcompression",
        ending: ".safetensors",
        hash: Hash::Sha256("d778507c89169e8ae4f6c2b7f32c20bbab1400f701c80b84edc8863e23ba371f"),
        arch: "squeezenet1_0",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Torch,
        resize: Resize::WHOLE,
        lineage: "ImageNet-1k; Deep Compression's pruned Caffe model; BSD-2-Clause",
        url: None,
    },
    Known {
        name: "vgg16_weights_tf_dim_ordering_tf_kernels",
        ending: ".h5",
        hash: Hash::Md5("64373286793e3c8b2b4e3219cbf3544b"),
        arch: "vgg16",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Caffe,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; Simonyan and Zisserman's Caffe model, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        ),
    },
    Known {
        name: "vgg16_weights_tf_dim_ordering_tf_kernels_notop",
        ending: ".h5",
        hash: Hash::Md5("6d6bbae143d832006294945121d1f1fc"),
        arch: "vgg16",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Caffe,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; Simonyan and Zisserman's Caffe model, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        ),
    },
    Known {
        name: "vgg19_weights_tf_dim_ordering_tf_kernels",
        ending: ".h5",
        hash: Hash::Md5("cbe5617147190e668d6c5d5026f83318"),
        arch: "vgg19",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Caffe,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; Simonyan and Zisserman's Caffe model, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels.h5",
        ),
    },
    Known {
        name: "vgg19_weights_tf_dim_ordering_tf_kernels_notop",
        ending: ".h5",
        hash: Hash::Md5("253f8cb515780f3b799900260a226db6"),
        arch: "vgg19",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Caffe,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; Simonyan and Zisserman's Caffe model, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        ),
    },
    Known {
        name: "inception_v3_weights_tf_dim_ordering_tf_kernels",
        ending: ".h5",
        hash: Hash::Md5("9a0d58056eeedaa3f26cb7ebd46da564"),
        arch: "inception_v3",
        width: 1.0,
        input: 299,
        preprocess: Preprocess::Tf,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; trained by Google, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
        ),
    },
    Known {
        name: "inception_v3_weights_tf_dim_ordering_tf_kernels_notop",
        ending: ".h5",
        hash: Hash::Md5("bcbd6486424b2319ff4ef7d526e38f63"),
        arch: "inception_v3",
        width: 1.0,
        input: 299,
        preprocess: Preprocess::Tf,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; trained by Google, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        ),
    },
    Known {
        name: "resnet50_weights_tf_dim_ordering_tf_kernels",
        ending: ".h5",
        hash: Hash::Md5("2cb95161c43110f7111970584f804107"),
        arch: "resnet50",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Caffe,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; He et al.'s Caffe model, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/resnet/resnet50_weights_tf_dim_ordering_tf_kernels.h5",
        ),
    },
    Known {
        name: "resnet50_weights_tf_dim_ordering_tf_kernels_notop",
        ending: ".h5",
        hash: Hash::Md5("4d473c1dd8becc155b73f8504c6f6626"),
        arch: "resnet50",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Caffe,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; He et al.'s Caffe model, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        ),
    },
    Known {
        name: "mobilenet_1_0_224_tf",
        ending: ".h5",
        hash: Hash::Unpublished,
        arch: "mobilenet_v1",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Tf,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; TensorFlow's MobileNet, converted by Keras",
        url: Some("https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/mobilenet_1_0_224_tf.h5"),
    },
    Known {
        name: "mobilenet_1_0_224_tf_no_top",
        ending: ".h5",
        hash: Hash::Unpublished,
        arch: "mobilenet_v1",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Tf,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; TensorFlow's MobileNet, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/mobilenet_1_0_224_tf_no_top.h5",
        ),
    },
    Known {
        name: "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224",
        ending: ".h5",
        hash: Hash::Unpublished,
        arch: "mobilenet_v2",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Tf,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; TensorFlow's MobileNet V2, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
        ),
    },
    Known {
        name: "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top",
        ending: ".h5",
        hash: Hash::Unpublished,
        arch: "mobilenet_v2",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Tf,
        resize: Resize::Stretch,
        lineage: "ImageNet-1k; TensorFlow's MobileNet V2, converted by Keras",
        url: Some(
            "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        ),
    },
    Known {
        name: "vgg16-397923af",
        ending: ".pth",
        hash: Hash::Sha256Prefix("397923af"),
        arch: "vgg16",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Torch,
        resize: Resize::Crop(875),
        lineage: "ImageNet-1k; retrained by torchvision, not the Caffe numbers",
        url: Some("https://download.pytorch.org/models/vgg16-397923af.pth"),
    },
    Known {
        name: "vgg16_features-amdegroot-88682ab5",
        ending: ".pth",
        hash: Hash::Sha256Prefix("88682ab5"),
        arch: "vgg16",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::CaffeRgb,
        resize: Resize::Crop(875),
        lineage: "ImageNet-1k; the Caffe features of A. deGroot, classifier of NaN",
        url: Some("https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth"),
    },
    Known {
        name: "vgg19-dcbb9e9d",
        ending: ".pth",
        hash: Hash::Sha256Prefix("dcbb9e9d"),
        arch: "vgg19",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Torch,
        resize: Resize::Crop(875),
        lineage: "ImageNet-1k; retrained by torchvision, not the Caffe numbers",
        url: Some("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"),
    },
    Known {
        name: "inception_v3_google-0cc3c7bd",
        ending: ".pth",
        hash: Hash::Sha256Prefix("0cc3c7bd"),
        arch: "inception_v3_torchvision",
        width: 1.0,
        input: 299,
        preprocess: Preprocess::Tf,
        resize: Resize::Crop(874),
        lineage: "ImageNet-1k; TensorFlow's numbers, converted by torchvision (transform_input is x / 127.5 - 1)",
        url: Some("https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"),
    },
    Known {
        name: "resnet50-0676ba61",
        ending: ".pth",
        hash: Hash::Sha256Prefix("0676ba61"),
        arch: "resnet50_torchvision",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Torch,
        resize: Resize::Crop(875),
        lineage: "ImageNet-1k; torchvision, first recipe",
        url: Some("https://download.pytorch.org/models/resnet50-0676ba61.pth"),
    },
    Known {
        name: "resnet50-11ad3fa6",
        ending: ".pth",
        hash: Hash::Sha256Prefix("11ad3fa6"),
        arch: "resnet50_torchvision",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Torch,
        resize: Resize::Crop(966),
        lineage: "ImageNet-1k; torchvision, second recipe",
        url: Some("https://download.pytorch.org/models/resnet50-11ad3fa6.pth"),
    },
    Known {
        name: "mobilenet_v2-b0353104",
        ending: ".pth",
        hash: Hash::Sha256Prefix("b0353104"),
        arch: "mobilenet_v2_torchvision",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Torch,
        resize: Resize::Crop(875),
        lineage: "ImageNet-1k; torchvision, first recipe",
        url: Some("https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"),
    },
    Known {
        name: "mobilenet_v2-7ebf99e0",
        ending: ".pth",
        hash: Hash::Sha256Prefix("7ebf99e0"),
        arch: "mobilenet_v2_torchvision",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Torch,
        resize: Resize::Crop(966),
        lineage: "ImageNet-1k; torchvision, second recipe",
        url: Some("https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth"),
    },
    Known {
        name: "squeezenet1_0-b66bff10",
        ending: ".pth",
        hash: Hash::Sha256Prefix("b66bff10"),
        arch: "squeezenet1_0",
        width: 1.0,
        input: 224,
        preprocess: Preprocess::Torch,
        resize: Resize::Crop(875),
        lineage: "ImageNet-1k; torchvision's conversion",
        url: Some("https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth"),
    },
    Known {
        name: "resnet20-12fca82f",
        ending: ".th",
        hash: Hash::Sha256Prefix("12fca82f"),
        arch: "resnet20",
        width: 1.0,
        input: 32,
        preprocess: Preprocess::Torch,
        resize: Resize::WHOLE,
        lineage: "CIFAR-10; akamaster/pytorch_resnet_cifar10; BSD-2-Clause",
        url: Some(
            "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet20-12fca82f.th",
        ),
    },
    Known {
        name: "resnet56-4bfd9763",
        ending: ".th",
        hash: Hash::Sha256Prefix("4bfd9763"),
        arch: "resnet56",
        width: 1.0,
        input: 32,
        preprocess: Preprocess::Torch,
        resize: Resize::WHOLE,
        lineage: "CIFAR-10; akamaster/pytorch_resnet_cifar10; BSD-2-Clause",
        url: Some(
            "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet56-4bfd9763.th",
        ),
    },
];
