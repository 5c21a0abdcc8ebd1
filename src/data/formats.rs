//! What the files of a dataset are before they become squares: formats, sizes, which are grey, lie on their side or hold more than one
//! picture, and how much of 16 bits they use.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::decode::{Header, header, tones};
use super::open::{Content, Dataset};

/// At most so many images of 16 bits are decoded to see how bright they are, and so many files are looked at where not all are.
const FEW: usize = 200;
/// The share of all values that is to be no brighter than white.
const SHARE: f64 = 0.999;

/// What some files of a dataset are.
#[derive(Clone, Debug, PartialEq)]
pub struct Formats {
    pub headers: Vec<Header>,
    /// Names of files that cannot be read, and why.
    pub broken: Vec<(String, String)>,
    /// How bright those of 16 bits are, if there are any.
    pub tones: Option<Tones>,
}

/// How bright images of 16 bits are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tones {
    /// The images that were looked at.
    pub images: usize,
    /// 999 of 1000 of their values are no brighter.
    pub most: u16,
    /// The share of their values that is brighter than what the dataset calls white.
    pub above: f64,
}

impl Formats {
    /// Of all files of a dataset; nothing where it has none.
    ///
    /// # Errors
    /// A file or an archive cannot be read.
    pub fn of_all(dataset: &Dataset) -> anyhow::Result<Option<Self>> {
        Self::of(dataset, &(0..dataset.manifest.samples.len()).collect::<Vec<_>>())
    }

    /// Of a few of the files, evenly chosen; nothing where there are none, or none that may have 16 bits or more than one picture.
    ///
    /// # Errors
    /// As `of_all`.
    pub fn of_few(dataset: &Dataset) -> anyhow::Result<Option<Self>> {
        let samples = &dataset.manifest.samples;
        let is_plain = |id: &str| {
            let ending = id.rsplit_once('.').map_or("", |(_, ending)| ending).to_lowercase();
            ["jpg", "jpeg", "bmp"].contains(&ending.as_str())
        };
        let places: Vec<usize> = (0..samples.len()).filter(|at| !is_plain(&samples[*at].id)).collect();
        Self::of(dataset, &few(&places))
    }

    fn of(dataset: &Dataset, wanted: &[usize]) -> anyhow::Result<Option<Self>> {
        let found = Mutex::new(BTreeMap::new());
        dataset.each_file(wanted, &|place, bytes| {
            let header = header(bytes);
            found.lock().map_err(|_| anyhow::anyhow!("a file has failed"))?.insert(place, header);
            Ok(())
        })?;
        let found = found.into_inner()?;
        if found.is_empty() {
            return Ok(None);
        }
        let (mut headers, mut broken, mut deep) = (Vec::new(), Vec::new(), Vec::new());
        for (place, header) in found {
            match header {
                Ok(header) => {
                    headers.push(header);
                    deep.extend(header.deep.then_some(place));
                }
                Err(reason) => broken.push((dataset.manifest.samples[place].id.clone(), reason)),
            }
        }
        let tones = if deep.is_empty() { None } else { Some(Tones::of(dataset, &few(&deep))?) };
        Ok(Some(Self { headers, broken, tones }))
    }

    /// How many files of each format, the most first.
    pub fn counts(&self) -> Vec<(&'static str, usize)> {
        let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
        self.headers.iter().for_each(|header| *counts.entry(header.format).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// Width and height of the smallest, the median and the largest image, by their pixels.
    pub fn sizes(&self) -> Option<[[u32; 2]; 3]> {
        let mut sizes: Vec<[u32; 2]> = self.headers.iter().map(|header| [header.width, header.height]).collect();
        sizes.sort_by_key(|[width, height]| u64::from(*width) * u64::from(*height));
        Some([*sizes.first()?, sizes[(sizes.len() - 1) / 2], *sizes.last()?])
    }
}

impl Tones {
    fn of(dataset: &Dataset, places: &[usize]) -> anyhow::Result<Self> {
        let all = Mutex::new((vec![0u64; 1 << 16], 0));
        dataset.each_file(places, &|_, bytes| {
            // What is wrong with its pixels is told where it is decoded to be used.
            let Ok(Some(values)) = tones(bytes) else { return Ok(()) };
            let mut own = vec![0u64; 1 << 16];
            values.iter().for_each(|value| own[usize::from(*value)] += 1);
            let mut all = all.lock().map_err(|_| anyhow::anyhow!("a file has failed"))?;
            all.0.iter_mut().zip(own).for_each(|(all, own)| *all += own);
            all.1 += 1;
            Ok(())
        })?;
        let (counts, images) = all.into_inner()?;
        let values: u64 = counts.iter().sum();
        let mut sum = 0;
        let most = counts.iter().position(|count| {
            sum += count;
            sum as f64 >= SHARE * values as f64
        });
        let white = usize::from(dataset.manifest.white.unwrap_or(u16::MAX));
        let above = counts[white + 1..].iter().sum::<u64>() as f64 / values.max(1) as f64;
        Ok(Self { images, most: most.unwrap_or(0) as u16, above })
    }

    /// The white of the fewest bits, eight or more, that leaves 999 of 1000 values below it.
    pub fn white(&self) -> u16 {
        (8..16).map(|bits| u16::MAX >> (16 - bits)).find(|white| *white >= self.most).unwrap_or(u16::MAX)
    }
}

/// What a person should know of how bright the images of a dataset are as they are read, of a `white` that does nothing, and of
/// files of which but the first picture is read.
///
/// # Errors
/// A file or an archive cannot be read.
pub fn told(dataset: &Dataset) -> anyhow::Result<Vec<String>> {
    let Content::Joined(pieces) = &dataset.content else { return told_of_one(dataset) };
    // Corrupted copies of its own come with it.
    let datasets: BTreeMap<&str, &Dataset> =
        pieces.iter().map(|piece| (piece.dataset.name.as_str(), &*piece.dataset)).collect();
    Ok(datasets.into_values().map(told_of_one).collect::<anyhow::Result<Vec<_>>>()?.concat())
}

fn told_of_one(dataset: &Dataset) -> anyhow::Result<Vec<String>> {
    let formats = Formats::of_few(dataset)?;
    let told = [told_of_pages(dataset, formats.as_ref()), told_of_white(dataset, formats.as_ref())];
    Ok(told.into_iter().flatten().collect())
}

fn told_of_pages(dataset: &Dataset, formats: Option<&Formats>) -> Option<String> {
    let formats = formats?;
    let more = formats.headers.iter().filter(|header| header.more).count();
    (more > 0).then(|| {
        format!(
            "{more} of the {} files of '{}' that were looked at hold several pages or frames, and the first of each is read: those              that are images of their own must be files of their own",
            formats.headers.len(),
            dataset.name
        )
    })
}

fn told_of_white(dataset: &Dataset, formats: Option<&Formats>) -> Option<String> {
    let (name, white) = (&dataset.name, dataset.manifest.white);
    let Some(tones) = formats.and_then(|formats| formats.tones) else {
        return white.map(|white| match formats {
            Some(formats) => format!(
                "white = {white} of '{name}' has no effect on {} of its images that were looked at: none has 16 bits",
                formats.headers.len()
            ),
            None => format!("white = {white} of '{name}' has no effect: none of its images has 16 bits"),
        });
    };
    let of = format!("images of '{name}' have 16 bits");
    match white {
        None if tones.white() < u16::MAX => Some(format!(
            "{of}, and in {} that were looked at 999 of 1000 values are at most {}: as 65535 is white, they are darker than they \
             might be; white = {} under [datasets.{name}] spreads them",
            tones.images,
            tones.most,
            tones.white()
        )),
        Some(white) if tones.above > 1.0 - SHARE => Some(format!(
            "{of}, and {:.1}% of the values are above white = {white} and become white: {} would keep them apart",
            100.0 * tones.above,
            tones.white()
        )),
        _ => None,
    }
}

/// At most `FEW` of them, evenly.
fn few(places: &[usize]) -> Vec<usize> {
    let kept = places.len().min(FEW);
    (0..kept).map(|at| places[(2 * at + 1) * places.len() / (2 * kept)]).collect()
}
