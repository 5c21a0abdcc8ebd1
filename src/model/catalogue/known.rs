//! The known weight files. MD5 sums and addresses are those of keras/src/applications (Keras 3.15), hash prefixes and
//! addresses those of torchvision 0.29 and timm 1.0.

use std::sync::LazyLock;

use super::{Hash, Known, Published};
use crate::frame::Resize;
use crate::model::arch::family;
use crate::preprocess::Preprocess;

/// All of them: what is published nowhere as it is, Keras', torchvision's, and others'.
pub static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let keras = KERAS.iter().flat_map(|(arch, folder, lineage, files)| {
        files.map(|(name, md5)| Known {
            hash: md5.map_or(Hash::Unpublished, Hash::Md5),
            resize: Resize::STRETCH,
            lineage,
            published: Published::Keras(folder),
            ..usual(name, ".h5", arch)
        })
    });
    let torch = TORCHVISION.iter().map(|(arch, name, crop, lineage)| Known {
        resize: filtered(Resize::crop(*crop), lineage),
        lineage,
        published: Published::Torch,
        ..usual(name, ".pth", arch)
    });
    let cifar = CIFAR.iter().map(|(arch, name)| Known {
        lineage: "CIFAR-10; akamaster/pytorch_resnet_cifar10; BSD-2-Clause",
        published: Published::Below("https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"),
        ..usual(name, ".th", arch)
    });
    let meta = META.iter().map(|(arch, folder, name, lineage)| Known {
        lineage,
        published: Published::Below(folder),
        // Only DeiT's names end with the first digits of their hashes.
        hash: if name.starts_with("deit") { usual(name, ".pth", arch).hash } else { Hash::Unpublished },
        resize: filtered(Resize::crop(875), lineage),
        ..usual(name, ".pth", arch)
    });
    let mut all: Vec<Known> = converted().into_iter().chain(keras).chain(torch).chain(cifar).chain(meta).collect();
    for known in &mut all {
        match known.name {
            "vgg16_features-amdegroot-88682ab5" => known.preprocess = Preprocess::CaffeRgb,
            // It was measured at a larger side than it was trained at.
            "efficientnet_b2_rwightman-c35c1473" => known.input = 288,
            "vit_b_16_swag-9ac1b537" | "deit_base_patch16_384-8de9b5d1" => known.input = 384,
            "regnet_y_16gf_swag-43afe44d" | "regnet_y_32gf_swag-04fdfa75" | "regnet_y_128gf_swag-c8ce3e52" => {
                known.input = 384;
            }
            "vit_l_16_swag-4f3808c9" => known.input = 512,
            "vit_h_14_swag-80465313" => known.input = 518,
            _ if known.arch.starts_with("vgg") && known.ending == ".pth" => known.preprocess = Preprocess::Torch,
            _ => {}
        }
    }
    all
});

/// With the filter that a lineage names.
fn filtered(resize: Resize, lineage: &str) -> Resize {
    if lineage.ends_with("bicubic resizing") { resize.bicubic() } else { resize }
}

/// A file for an architecture as it usually is; the digits behind the last hyphen of PyTorch's names begin its SHA-256.
fn usual(name: &'static str, ending: &'static str, arch: &'static str) -> Known {
    let (input, preprocess) =
        family(arch).map_or((0, Preprocess::Torch), |family| (family.default_input, family.preprocess));
    Known {
        name,
        ending,
        hash: name.rsplit_once('-').map_or(Hash::Unpublished, |(_, digits)| Hash::Sha256Prefix(digits)),
        arch,
        width: 1.0,
        input,
        preprocess,
        resize: Resize::WHOLE,
        lineage: "",
        published: Published::Nowhere,
    }
}

/// Files in the layout of this program or of their makers, converted from others.
fn converted() -> Vec<Known> {
    const QUANTISED: &str = "ImageNet-1k; TensorFlow MobileNet, uint8 quantised, read back as float; Apache-2.0";
    let file = |name, arch, sha256, lineage| Known {
        hash: Hash::Sha256(sha256),
        lineage,
        ..usual(name, ".safetensors", arch)
    };
    let mobile = |known: Known, width: f64, input: usize| Known { width, input, ..known };
    vec![
        file(
            "cifar10_resnet20",
            "resnet20",
            "6231d5cb53f0db812044fdc53f4d4b9003029aeee803b2d02192e53615b18a26",
            "CIFAR-10; akamaster/pytorch_resnet_cifar10 resnet20-12fca82f.th; BSD-2-Clause",
        ),
        file(
            "cifar10_resnet56",
            "resnet56",
            "d31d32b09458ebc4acd03877fbb3a59c3bc04d1df7fcb3a9a6d90fb019ff5bce",
            "CIFAR-10; akamaster/pytorch_resnet_cifar10 resnet56-4bfd9763.th; BSD-2-Clause",
        ),
        mobile(
            file(
                "mobilenet_v1_0.25_128_dequant",
                "mobilenet_v1",
                "cb73394153e2503ded36b8c4c6cc2b0721de0960382d23238460e1919d83b5f6",
                QUANTISED,
            ),
            0.25,
            128,
        ),
        mobile(
            file(
                "mobilenet_v1_0.5_160_dequant",
                "mobilenet_v1",
                "0072bad53cf4cd79b268aab0c7e8224ac5f29807c2f08e61ba4e3419fd22c63d",
                QUANTISED,
            ),
            0.5,
            160,
        ),
        mobile(
            file(
                "mobilenet_v1_0.75_224_float",
                "mobilenet_v1",
                "9658116b1155835a00047387745f5d87b2351ff6f6eb25ebe32ec4092b863a0b",
                "ImageNet-1k; Keras MobileNet by way of TensorFlow.js; Apache-2.0",
            ),
            0.75,
            224,
        ),
        file(
            "mobilenet_v2_1.0_224_dequant_tf2ptq",
            "mobilenet_v2_tf",
            "36b68937757355b877f3705ecb9197f5fb432576ace4ffb01a1e2d0c13d9e467",
            "ImageNet-1k; TensorFlow MobileNet V2, int8 quantised, read back as float; Apache-2.0",
        ),
        file(
            "squeezenet1_0_deepcompression",
            "squeezenet1_0",
            "d778507c89169e8ae4f6c2b7f32c20bbab1400f701c80b84edc8863e23ba371f",
            "ImageNet-1k; Deep Compression's pruned Caffe model; BSD-2-Clause",
        ),
    ]
}

const CIFAR: [(&str, &str); 2] = [("resnet20", "resnet20-12fca82f"), ("resnet56", "resnet56-4bfd9763")];

/// Architecture, folder below keras-applications, lineage, and the files with and without top: name and MD5.
type OfKeras = (&'static str, &'static str, &'static str, [(&'static str, Option<&'static str>); 2]);

const CAFFE: &str = "ImageNet-1k; Simonyan and Zisserman's Caffe model, converted by Keras";
const HE: &str = "ImageNet-1k; He et al.'s Caffe model, converted by Keras";
const OF_KERAS: &str = "ImageNet-1k; as Keras publishes it";
const HUANG: &str = "ImageNet-1k; Huang et al.'s Torch model, converted by Keras";
const TAN: &str = "ImageNet-1k; Tan and Le's model, converted by Keras; it prepares images itself";

#[rustfmt::skip]
const KERAS: &[OfKeras] = &[
    ("vgg16", "vgg16", CAFFE, [
        ("vgg16_weights_tf_dim_ordering_tf_kernels", Some("64373286793e3c8b2b4e3219cbf3544b")),
        ("vgg16_weights_tf_dim_ordering_tf_kernels_notop", Some("6d6bbae143d832006294945121d1f1fc")),
    ]),
    ("vgg19", "vgg19", CAFFE, [
        ("vgg19_weights_tf_dim_ordering_tf_kernels", Some("cbe5617147190e668d6c5d5026f83318")),
        ("vgg19_weights_tf_dim_ordering_tf_kernels_notop", Some("253f8cb515780f3b799900260a226db6")),
    ]),
    ("inception_v3", "inception_v3", "ImageNet-1k; trained by Google, converted by Keras", [
        ("inception_v3_weights_tf_dim_ordering_tf_kernels", Some("9a0d58056eeedaa3f26cb7ebd46da564")),
        ("inception_v3_weights_tf_dim_ordering_tf_kernels_notop", Some("bcbd6486424b2319ff4ef7d526e38f63")),
    ]),
    ("resnet50", "resnet", HE, [
        ("resnet50_weights_tf_dim_ordering_tf_kernels", Some("2cb95161c43110f7111970584f804107")),
        ("resnet50_weights_tf_dim_ordering_tf_kernels_notop", Some("4d473c1dd8becc155b73f8504c6f6626")),
    ]),
    ("resnet101", "resnet", HE, [
        ("resnet101_weights_tf_dim_ordering_tf_kernels", Some("f1aeb4b969a6efcfb50fad2f0c20cfc5")),
        ("resnet101_weights_tf_dim_ordering_tf_kernels_notop", Some("88cf7a10940856eca736dc7b7e228a21")),
    ]),
    ("resnet152", "resnet", HE, [
        ("resnet152_weights_tf_dim_ordering_tf_kernels", Some("100835be76be38e30d865e96f2aaae62")),
        ("resnet152_weights_tf_dim_ordering_tf_kernels_notop", Some("ee4c566cf9a93f14d82f913c2dc6dd0c")),
    ]),
    ("resnet50v2", "resnet", OF_KERAS, [
        ("resnet50v2_weights_tf_dim_ordering_tf_kernels", Some("3ef43a0b657b3be2300d5770ece849e0")),
        ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop", Some("fac2f116257151a9d068a22e544a4917")),
    ]),
    ("resnet101v2", "resnet", OF_KERAS, [
        ("resnet101v2_weights_tf_dim_ordering_tf_kernels", Some("6343647c601c52e1368623803854d971")),
        ("resnet101v2_weights_tf_dim_ordering_tf_kernels_notop", Some("c0ed64b8031c3730f411d2eb4eea35b5")),
    ]),
    ("resnet152v2", "resnet", OF_KERAS, [
        ("resnet152v2_weights_tf_dim_ordering_tf_kernels", Some("a49b44d1979771252814e80f8ec446f9")),
        ("resnet152v2_weights_tf_dim_ordering_tf_kernels_notop", Some("ed17cf2e0169df9d443503ef94b23b33")),
    ]),
    ("xception", "xception", OF_KERAS, [
        ("xception_weights_tf_dim_ordering_tf_kernels", Some("0a58e3b7378bc2990ea3b43d5981f1f6")),
        ("xception_weights_tf_dim_ordering_tf_kernels_notop", Some("b0042744bf5b25fce3cb969f33bebb97")),
    ]),
    ("densenet121", "densenet", HUANG, [
        ("densenet121_weights_tf_dim_ordering_tf_kernels", Some("9d60b8095a5708f2dcce2bca79d332c7")),
        ("densenet121_weights_tf_dim_ordering_tf_kernels_notop", Some("30ee3e1110167f948a6b9946edeeb738")),
    ]),
    ("densenet169", "densenet", HUANG, [
        ("densenet169_weights_tf_dim_ordering_tf_kernels", Some("d699b8f76981ab1b30698df4c175e90b")),
        ("densenet169_weights_tf_dim_ordering_tf_kernels_notop", Some("b8c4d4c20dd625c148057b9ff1c1176b")),
    ]),
    ("densenet201", "densenet", HUANG, [
        ("densenet201_weights_tf_dim_ordering_tf_kernels", Some("1ceb130c1ea1b78c3bf6114dbdfd8807")),
        ("densenet201_weights_tf_dim_ordering_tf_kernels_notop", Some("c13680b51ded0fb44dff2d8f86ac8bb1")),
    ]),
    ("efficientnet_v2_b0", "efficientnet_v2", TAN, [
        ("efficientnetv2-b0", Some("21ecbf6da12460d5c40bb2f29ceb2188")),
        ("efficientnetv2-b0_notop", Some("893217f2bb855e2983157299931e43ff")),
    ]),
    ("efficientnet_v2_b1", "efficientnet_v2", TAN, [
        ("efficientnetv2-b1", Some("069f0534ff22adf035c89e2d9547a9dc")),
        ("efficientnetv2-b1_notop", Some("0e80663031ca32d657f9caa404b6ec37")),
    ]),
    ("efficientnet_v2_b2", "efficientnet_v2", TAN, [
        ("efficientnetv2-b2", Some("424e49f28180edbde1e94797771950a7")),
        ("efficientnetv2-b2_notop", Some("1dfe2e7a5d45b6632553a8961ea609eb")),
    ]),
    ("efficientnet_v2_b3", "efficientnet_v2", TAN, [
        ("efficientnetv2-b3", Some("1f1fc43bd98a6e4fd8fdfd551e02c7a0")),
        ("efficientnetv2-b3_notop", Some("f6abf7b5849ac99a89b50dd3fd532856")),
    ]),
    ("efficientnet_v2_s_keras", "efficientnet_v2", TAN, [
        ("efficientnetv2-s", Some("e1d88a8495beba45748fedd0cecbe016")),
        ("efficientnetv2-s_notop", Some("af0682fb74e8c54910f2d4393339c070")),
    ]),
    ("efficientnet_v2_m_keras", "efficientnet_v2", TAN, [
        ("efficientnetv2-m", Some("a3bf6aa3276309f4fc6a34aa114c95cd")),
        ("efficientnetv2-m_notop", Some("1b8dc055df72dde80d614482840fe342")),
    ]),
    ("efficientnet_v2_l_keras", "efficientnet_v2", TAN, [
        ("efficientnetv2-l", Some("27e6d408b53c7ebc868fefa357689935")),
        ("efficientnetv2-l_notop", Some("b0b66b5c863aef5b46e8608fe1711615")),
    ]),
    ("efficientnet_b0", "", TAN, [
        ("efficientnetb0", Some("902e53a9f72be733fc0bcb005b3ebbac")),
        ("efficientnetb0_notop", Some("50bc09e76180e00e4465e1a485ddc09d")),
    ]),
    ("efficientnet_b1", "", TAN, [
        ("efficientnetb1", Some("1d254153d4ab51201f1646940f018540")),
        ("efficientnetb1_notop", Some("74c4e6b3e1f6a1eea24c589628592432")),
    ]),
    ("efficientnet_b2", "", TAN, [
        ("efficientnetb2", Some("b15cce36ff4dcbd00b6dd88e7857a6ad")),
        ("efficientnetb2_notop", Some("111f8e2ac8aa800a7a99e3239f7bfb39")),
    ]),
    ("efficientnet_b3", "", TAN, [
        ("efficientnetb3", Some("ffd1fdc53d0ce67064dc6a9c7960ede0")),
        ("efficientnetb3_notop", Some("af6d107764bb5b1abb91932881670226")),
    ]),
    ("efficientnet_b4", "", TAN, [
        ("efficientnetb4", Some("18c95ad55216b8f92d7e70b3a046e2fc")),
        ("efficientnetb4_notop", Some("ebc24e6d6c33eaebbd558eafbeedf1ba")),
    ]),
    ("efficientnet_b5", "", TAN, [
        ("efficientnetb5", Some("ace28f2a6363774853a83a0b21b9421a")),
        ("efficientnetb5_notop", Some("38879255a25d3c92d5e44e04ae6cec6f")),
    ]),
    ("efficientnet_b6", "", TAN, [
        ("efficientnetb6", Some("165f6e37dce68623721b423839de8be5")),
        ("efficientnetb6_notop", Some("9ecce42647a20130c1f39a5d4cb75743")),
    ]),
    ("efficientnet_b7", "", TAN, [
        ("efficientnetb7", Some("8c03f828fec3ef71311cd463b6759d99")),
        ("efficientnetb7_notop", Some("cbcfe4450ddf6f3ad90b1b398090fe4a")),
    ]),
    ("mobilenet_v1", "mobilenet", "ImageNet-1k; TensorFlow's MobileNet, converted by Keras", [
        ("mobilenet_1_0_224_tf", None),
        ("mobilenet_1_0_224_tf_no_top", None),
    ]),
    ("mobilenet_v2", "mobilenet_v2", "ImageNet-1k; TensorFlow's MobileNet V2, converted by Keras", [
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224", None),
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top", None),
    ]),
];

const RETRAINED: &str = "ImageNet-1k; retrained by torchvision, not the Caffe numbers";
const FIRST: &str = "ImageNet-1k; torchvision, first recipe";
const SECOND: &str = "ImageNet-1k; torchvision, second recipe";
const LUATORCH: &str = "ImageNet-1k; Huang et al.'s Torch model, converted by torchvision";
const WIGHTMAN: &str = "ImageNet-1k; trained for timm, converted by torchvision; measured with bicubic resizing";
const MELAS: &str = "ImageNet-1k; Tan and Le's model, converted by torchvision; measured with bicubic resizing";

const SWIN: &str = "ImageNet-1k; trained by torchvision; measured with bicubic resizing";
const DEIT: &str = "ImageNet-1k; torchvision, a recipe like DeiT's";
const SWAG: &str =
    "Instagram hashtags, then ImageNet-1k; Singh et al.'s SWAG; CC-BY-NC-4.0; measured with bicubic resizing";
const SWAG_HEAD: &str =
    "Instagram hashtags, a linear head for ImageNet-1k; SWAG; CC-BY-NC-4.0; measured with bicubic resizing";

/// Architecture, name, thousandths of the resized image that the crop keeps, lineage.
#[rustfmt::skip]
const TORCHVISION: &[(&str, &str, u16, &str)] = &[
    ("vgg16", "vgg16-397923af", 875, RETRAINED),
    ("vgg16", "vgg16_features-amdegroot-88682ab5", 875, "ImageNet-1k; the Caffe features of A. deGroot, classifier of NaN"),
    ("vgg19", "vgg19-dcbb9e9d", 875, RETRAINED),
    ("inception_v3_torchvision", "inception_v3_google-0cc3c7bd", 874,
        "ImageNet-1k; TensorFlow's numbers, converted by torchvision (transform_input is x / 127.5 - 1)"),
    ("resnet18", "resnet18-f37072fd", 875, FIRST),
    ("resnet34", "resnet34-b627a593", 875, FIRST),
    ("resnet50_torchvision", "resnet50-0676ba61", 875, FIRST),
    ("resnet50_torchvision", "resnet50-11ad3fa6", 966, SECOND),
    ("resnet101_torchvision", "resnet101-63fe2227", 875, FIRST),
    ("resnet101_torchvision", "resnet101-cd907fc2", 966, SECOND),
    ("resnet152_torchvision", "resnet152-394f9c45", 875, FIRST),
    ("resnet152_torchvision", "resnet152-f82ba261", 966, SECOND),
    ("resnext50_32x4d", "resnext50_32x4d-7cdf4587", 875, FIRST),
    ("resnext50_32x4d", "resnext50_32x4d-1a0047aa", 966, SECOND),
    ("resnext101_32x8d", "resnext101_32x8d-8ba56ff5", 875, FIRST),
    ("resnext101_32x8d", "resnext101_32x8d-110c445d", 966, SECOND),
    ("resnext101_64x4d", "resnext101_64x4d-173b62eb", 966, SECOND),
    ("wide_resnet50_2", "wide_resnet50_2-95faca4d", 875, FIRST),
    ("wide_resnet50_2", "wide_resnet50_2-9ba9bcbe", 966, SECOND),
    ("wide_resnet101_2", "wide_resnet101_2-32ee1156", 875, FIRST),
    ("wide_resnet101_2", "wide_resnet101_2-d733dc28", 966, SECOND),
    ("densenet121_torchvision", "densenet121-a639ec97", 875, LUATORCH),
    ("densenet169_torchvision", "densenet169-b2777c0a", 875, LUATORCH),
    ("densenet201_torchvision", "densenet201-c1103571", 875, LUATORCH),
    ("efficientnet_b0_torchvision", "efficientnet_b0_rwightman-7f5810bc", 875, WIGHTMAN),
    ("efficientnet_b1_torchvision", "efficientnet_b1_rwightman-bac287d4", 938, WIGHTMAN),
    ("efficientnet_b1_torchvision", "efficientnet_b1-c27df63c", 941, SECOND),
    ("efficientnet_b2_torchvision", "efficientnet_b2_rwightman-c35c1473", 1000, WIGHTMAN),
    ("efficientnet_b3_torchvision", "efficientnet_b3_rwightman-b3899882", 938, WIGHTMAN),
    ("efficientnet_b4_torchvision", "efficientnet_b4_rwightman-23ab8bcd", 990, WIGHTMAN),
    ("efficientnet_b5_torchvision", "efficientnet_b5_lukemelas-1a07897c", 1000, MELAS),
    ("efficientnet_b6_torchvision", "efficientnet_b6_lukemelas-24a108a5", 1000, MELAS),
    ("efficientnet_b7_torchvision", "efficientnet_b7_lukemelas-c5b4e57e", 1000, MELAS),
    ("efficientnet_v2_s", "efficientnet_v2_s-dd5fe13b", 1000, SECOND),
    ("efficientnet_v2_m", "efficientnet_v2_m-dc08266a", 1000, SECOND),
    ("efficientnet_v2_l", "efficientnet_v2_l-59c71312", 1000, MELAS),
    ("mobilenet_v2_torchvision", "mobilenet_v2-b0353104", 875, FIRST),
    ("mobilenet_v2_torchvision", "mobilenet_v2-7ebf99e0", 966, SECOND),
    ("mobilenet_v3_small", "mobilenet_v3_small-047dcff4", 875, FIRST),
    ("mobilenet_v3_large", "mobilenet_v3_large-8738ca79", 875, FIRST),
    ("mobilenet_v3_large", "mobilenet_v3_large-5c1a4163", 966, SECOND),
    ("regnet_x_400mf", "regnet_x_400mf-adf1edd5", 875, FIRST),
    ("regnet_x_400mf", "regnet_x_400mf-62229a5f", 966, SECOND),
    ("regnet_x_800mf", "regnet_x_800mf-ad17e45c", 875, FIRST),
    ("regnet_x_800mf", "regnet_x_800mf-94a99ebd", 966, SECOND),
    ("regnet_x_1_6gf", "regnet_x_1_6gf-e3633e7f", 875, FIRST),
    ("regnet_x_1_6gf", "regnet_x_1_6gf-a12f2b72", 966, SECOND),
    ("regnet_x_3_2gf", "regnet_x_3_2gf-f342aeae", 875, FIRST),
    ("regnet_x_3_2gf", "regnet_x_3_2gf-7071aa85", 966, SECOND),
    ("regnet_x_8gf", "regnet_x_8gf-03ceed89", 875, FIRST),
    ("regnet_x_8gf", "regnet_x_8gf-2b70d774", 966, SECOND),
    ("regnet_x_16gf", "regnet_x_16gf-2007eb11", 875, FIRST),
    ("regnet_x_16gf", "regnet_x_16gf-ba3796d7", 966, SECOND),
    ("regnet_x_32gf", "regnet_x_32gf-9d47f8d0", 875, FIRST),
    ("regnet_x_32gf", "regnet_x_32gf-6eb8fdc6", 966, SECOND),
    ("regnet_y_400mf", "regnet_y_400mf-c65dace8", 875, FIRST),
    ("regnet_y_400mf", "regnet_y_400mf-e6988f5f", 966, SECOND),
    ("regnet_y_800mf", "regnet_y_800mf-1b27b58c", 875, FIRST),
    ("regnet_y_800mf", "regnet_y_800mf-58fc7688", 966, SECOND),
    ("regnet_y_1_6gf", "regnet_y_1_6gf-b11a554e", 875, FIRST),
    ("regnet_y_1_6gf", "regnet_y_1_6gf-0d7bc02a", 966, SECOND),
    ("regnet_y_3_2gf", "regnet_y_3_2gf-b5a9779c", 875, FIRST),
    ("regnet_y_3_2gf", "regnet_y_3_2gf-9180c971", 966, SECOND),
    ("regnet_y_8gf", "regnet_y_8gf-d0d0e4a8", 875, FIRST),
    ("regnet_y_8gf", "regnet_y_8gf-dc2b1b54", 966, SECOND),
    ("regnet_y_16gf", "regnet_y_16gf-9e6ed7dd", 875, FIRST),
    ("regnet_y_16gf", "regnet_y_16gf-3e4a00f9", 966, SECOND),
    ("regnet_y_16gf", "regnet_y_16gf_swag-43afe44d", 1000, SWAG),
    ("regnet_y_16gf", "regnet_y_16gf_lc_swag-f3ec0043", 1000, SWAG_HEAD),
    ("regnet_y_32gf", "regnet_y_32gf-4dee3f7a", 875, FIRST),
    ("regnet_y_32gf", "regnet_y_32gf-8db6d4b5", 966, SECOND),
    ("regnet_y_32gf", "regnet_y_32gf_swag-04fdfa75", 1000, SWAG),
    ("regnet_y_32gf", "regnet_y_32gf_lc_swag-e1583746", 1000, SWAG_HEAD),
    ("regnet_y_128gf", "regnet_y_128gf_swag-c8ce3e52", 1000, SWAG),
    ("regnet_y_128gf", "regnet_y_128gf_lc_swag-cbe8ce12", 1000, SWAG_HEAD),
    ("squeezenet1_0", "squeezenet1_0-b66bff10", 875, "ImageNet-1k; torchvision's conversion"),
    ("convnext_tiny", "convnext_tiny-983f1562", 949, SECOND),
    ("convnext_small", "convnext_small-0c510722", 974, SECOND),
    ("convnext_base", "convnext_base-6075fbad", 966, SECOND),
    ("convnext_large", "convnext_large-ea097f82", 966, SECOND),
    ("swin_t", "swin_t-704ceda3", 966, SWIN),
    ("swin_s", "swin_s-5e29d889", 911, SWIN),
    ("swin_b", "swin_b-68c6b09e", 941, SWIN),
    ("vit_b_16", "vit_b_16-c867db91", 875, DEIT),
    ("vit_b_16", "vit_b_16_swag-9ac1b537", 1000, SWAG),
    ("vit_b_16", "vit_b_16_lc_swag-4e70ced5", 1000, SWAG_HEAD),
    ("vit_b_32", "vit_b_32-d86f8d99", 875, DEIT),
    ("vit_l_16", "vit_l_16-852ce7e3", 926, SECOND),
    ("vit_l_16", "vit_l_16_swag-4f3808c9", 1000, SWAG),
    ("vit_l_16", "vit_l_16_lc_swag-4d563306", 1000, SWAG_HEAD),
    ("vit_l_32", "vit_l_32-c7638314", 875, DEIT),
    ("vit_h_14", "vit_h_14_swag-80465313", 1000, SWAG),
    ("vit_h_14", "vit_h_14_lc_swag-c1eb923e", 1000, SWAG_HEAD),
];

const OF_DEIT: &str = "ImageNet-1k; Touvron et al.'s DeiT; Apache-2.0; measured with bicubic resizing";
const OF_DINO: &str = "ImageNet-1k without labels; Caron et al.'s DINO; Apache-2.0; measured with bicubic resizing";
const OF_DINOV2: &str = "LVD-142M without labels; Oquab et al.'s DINOv2; Apache-2.0; measured with bicubic resizing";
const OF_MAE: &str = "ImageNet-1k without labels; He et al.'s MAE; CC-BY-NC-4.0; measured with bicubic resizing";

/// Transformers that Meta publishes, as timm 1.0 lists their addresses: architecture, folder, name, lineage.
#[rustfmt::skip]
const META: &[(&str, &str, &str, &str)] = &[
    ("vit_tiny_patch16", "https://dl.fbaipublicfiles.com/deit", "deit_tiny_patch16_224-a1311bcf", OF_DEIT),
    ("vit_small_patch16", "https://dl.fbaipublicfiles.com/deit", "deit_small_patch16_224-cd65a155", OF_DEIT),
    ("vit_base_patch16", "https://dl.fbaipublicfiles.com/deit", "deit_base_patch16_224-b5f2ef4d", OF_DEIT),
    ("vit_base_patch16", "https://dl.fbaipublicfiles.com/deit", "deit_base_patch16_384-8de9b5d1", OF_DEIT),
    ("vit_small_patch16", "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain", "dino_deitsmall16_pretrain", OF_DINO),
    ("vit_small_patch8", "https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_pretrain", "dino_deitsmall8_pretrain", OF_DINO),
    ("vit_base_patch16", "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain", "dino_vitbase16_pretrain", OF_DINO),
    ("vit_base_patch8", "https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain", "dino_vitbase8_pretrain", OF_DINO),
    ("vit_base_patch16", "https://dl.fbaipublicfiles.com/mae/pretrain", "mae_pretrain_vit_base", OF_MAE),
    ("vit_large_patch16", "https://dl.fbaipublicfiles.com/mae/pretrain", "mae_pretrain_vit_large", OF_MAE),
    ("dinov2_vits14", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14", "dinov2_vits14_pretrain", OF_DINOV2),
    ("dinov2_vitb14", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14", "dinov2_vitb14_pretrain", OF_DINOV2),
    ("dinov2_vitl14", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14", "dinov2_vitl14_pretrain", OF_DINOV2),
    ("dinov2_vits14_reg", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14", "dinov2_vits14_reg4_pretrain", OF_DINOV2),
    ("dinov2_vitb14_reg", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14", "dinov2_vitb14_reg4_pretrain", OF_DINOV2),
    ("dinov2_vitl14_reg", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14", "dinov2_vitl14_reg4_pretrain", OF_DINOV2),
];
