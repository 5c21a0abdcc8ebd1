//! Public datasets that can be fetched: where their files are, what is published about the bytes, how images lie in them.
//! Addresses and SHA-256 sums are those of TensorFlow Datasets 4.9.10 (`url_checksums` and `checksums.tsv`); what lies where
//! follows its builders. The address of hymenoptera is that of PyTorch's transfer learning tutorial.

/// A dataset that is published with a test split, and permits a download without an account.
pub struct Known {
    pub name: &'static str,
    pub files: &'static [Remote],
    pub layout: Layout,
    pub about: &'static str,
}

/// A file, and what is published about it.
pub struct Remote {
    pub url: &'static str,
    pub sha256: Option<&'static str>,
    /// For the list; 0 where it is not published.
    pub bytes: u64,
}

/// How a split's list names images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `Abyssinian_100 1 1 1`: the class before the last underscore, `images/Abyssinian_100.jpg`; `#` begins a comment.
    Pets,
    /// `banded/banded_0002.jpg`, in `dtd/images`.
    Textures,
    /// A JSON object: class to `apple_pie/1005649`, in `food-101/images`, without the ending.
    Food,
}

/// How the files become split/class/file, or a format that is read as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The files as they are.
    Plain,
    /// This folder of the archive, as it is.
    Folder(&'static str),
    /// split/class/file in this folder of the archive; only JPEG and PNG files are samples.
    Images(&'static str),
    /// An archive for each split, in the order of the files; an image's folder is its class.
    Splits(&'static [&'static str]),
    /// Split, and the list of its images.
    Lists(List, &'static [(&'static str, &'static str)]),
}

const fn remote(url: &'static str, sha256: &'static str, bytes: u64) -> Remote {
    Remote { url, sha256: Some(sha256), bytes }
}

pub static KNOWN: &[Known] = &[
    Known {
        name: "cifar10",
        files: &[remote(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170_052_171,
        )],
        layout: Layout::Folder("cifar-10-batches-bin"),
        about: "10 kinds of things, 32 pixels (Krizhevsky, 2009)",
    },
    Known {
        name: "cifar100",
        files: &[remote(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            168_513_733,
        )],
        layout: Layout::Folder("cifar-100-binary"),
        about: "100 kinds of things, 32 pixels (Krizhevsky, 2009)",
    },
    Known {
        name: "mnist",
        files: &[
            remote(
                "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                9_912_422,
            ),
            remote(
                "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                28_881,
            ),
            remote(
                "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-images-idx3-ubyte.gz",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                1_648_877,
            ),
            remote(
                "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                4_542,
            ),
        ],
        layout: Layout::Plain,
        about: "handwritten digits, 28 pixels, grey (LeCun, Cortes and Burges)",
    },
    Known {
        name: "fashion_mnist",
        files: &[
            remote(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                26_421_880,
            ),
            remote(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                29_515,
            ),
            remote(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images-idx3-ubyte.gz",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                4_422_102,
            ),
            remote(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                5_148,
            ),
        ],
        layout: Layout::Plain,
        about: "10 kinds of clothes, 28 pixels, grey (Xiao, Rasul and Vollgraf, 2017)",
    },
    Known {
        name: "kmnist",
        files: &[
            remote(
                "http://codh.rois.ac.jp/kmnist/dataset/kmnist/train-images-idx3-ubyte.gz",
                "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                18_165_135,
            ),
            remote(
                "http://codh.rois.ac.jp/kmnist/dataset/kmnist/train-labels-idx1-ubyte.gz",
                "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                29_497,
            ),
            remote(
                "http://codh.rois.ac.jp/kmnist/dataset/kmnist/t10k-images-idx3-ubyte.gz",
                "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                3_041_136,
            ),
            remote(
                "http://codh.rois.ac.jp/kmnist/dataset/kmnist/t10k-labels-idx1-ubyte.gz",
                "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
                5_120,
            ),
        ],
        layout: Layout::Plain,
        about: "10 cursive Japanese characters, 28 pixels, grey (Clanuwat et al., 2018)",
    },
    Known {
        name: "hymenoptera",
        files: &[Remote { url: "https://download.pytorch.org/tutorial/hymenoptera_data.zip", sha256: None, bytes: 0 }],
        layout: Layout::Images("hymenoptera_data"),
        about: "ants and bees, photos; val serves as test: splits = { test = \"val\" } (PyTorch's tutorial)",
    },
    Known {
        name: "beans",
        files: &[
            remote(
                "https://storage.googleapis.com/ibeans/train.zip",
                "284fe8456ce20687f4367ae7ad94a64577e7f9fde2c2c6b1c74340ab5dc82715",
                143_812_152,
            ),
            remote(
                "https://storage.googleapis.com/ibeans/validation.zip",
                "90b7aa1c26d91d9afff07a30bbc67a5ea34f1f1397f068d8675be09d7d0c602d",
                18_504_213,
            ),
            remote(
                "https://storage.googleapis.com/ibeans/test.zip",
                "ca67b15d960d1e2fd9d23fd8498ce86818ead90755c630a43baf19ec4af09312",
                17_708_541,
            ),
        ],
        layout: Layout::Splits(&["train", "val", "test"]),
        about: "bean leaves, healthy and with two diseases, 500 pixels (Makerere AI Lab)",
    },
    Known {
        name: "rock_paper_scissors",
        files: &[
            remote(
                "https://storage.googleapis.com/download.tensorflow.org/data/rps.zip",
                "c2403444395842ad04c53612bad54b574443eae17a0723117a2ff87b9d72194f",
                200_682_221,
            ),
            remote(
                "https://storage.googleapis.com/download.tensorflow.org/data/rps-test-set.zip",
                "c27ab9fa43ce40b2e453de711365b477f4424586edf0388116674fd320f07503",
                29_516_758,
            ),
        ],
        layout: Layout::Splits(&["train", "test"]),
        about: "rendered hands, 300 pixels (Moroney, 2019)",
    },
    Known {
        name: "horses_or_humans",
        files: &[
            remote(
                "https://storage.googleapis.com/download.tensorflow.org/data/horse-or-human.zip",
                "e2e6f70d3d549c5dd10a57165e55af253ee66ad750403f95c0fb76bb943633a9",
                149_574_867,
            ),
            remote(
                "https://storage.googleapis.com/download.tensorflow.org/data/validation-horse-or-human.zip",
                "ae5fff2f4f5554791f05358108e2e05d9801b191f1896ea101402f0e7f6c32c0",
                11_480_187,
            ),
        ],
        layout: Layout::Splits(&["train", "test"]),
        about: "rendered horses and humans, 300 pixels (Moroney, 2019)",
    },
    Known {
        name: "oxford_iiit_pet",
        files: &[
            remote(
                "https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz",
                "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
                791_918_971,
            ),
            remote(
                "https://thor.robots.ox.ac.uk/~vgg/data/pets/annotations.tar.gz",
                "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
                19_173_078,
            ),
        ],
        layout: Layout::Lists(List::Pets, &[("train", "annotations/trainval.txt"), ("test", "annotations/test.txt")]),
        about: "37 breeds of cats and dogs, photos (Parkhi et al., 2012)",
    },
    Known {
        name: "dtd",
        files: &[remote(
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
            "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
            625_239_812,
        )],
        layout: Layout::Lists(
            List::Textures,
            &[("train", "dtd/labels/train1.txt"), ("val", "dtd/labels/val1.txt"), ("test", "dtd/labels/test1.txt")],
        ),
        about: "47 textures, photos; the first of its ten splits (Cimpoi et al., 2014)",
    },
    Known {
        name: "food101",
        files: &[remote(
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
            4_996_278_331,
        )],
        layout: Layout::Lists(
            List::Food,
            &[("train", "food-101/meta/train.json"), ("test", "food-101/meta/test.json")],
        ),
        about: "101 dishes, photos; training labels are noisy on purpose (Bossard et al., 2014)",
    },
];

impl Known {
    /// Bytes of all its files; none where one is not published.
    pub fn bytes(&self) -> Option<u64> {
        self.files.iter().map(|file| (file.bytes > 0).then_some(file.bytes)).sum()
    }
}
