//! Which GPUs the kernels of this build run on.

use super::compiled::KERNELS;

/// Whether the kernels run on GPUs of a compute capability, major and minor.
pub fn runs_on(capability: (u32, u32)) -> bool {
    Target::of(KERNELS).runs_on(capability)
}

/// The compute capabilities that the kernels run on, in words.
pub fn built_for() -> String {
    Target::of(KERNELS).to_string()
}

/// What kernels were compiled for. The driver turns them into code for newer GPUs, but for those that were compiled for one
/// architecture (`sm_90a`, which is what the compiler driver asks for from 9.0 on) or one family (`sm_121f`): NVIDIA, CUDA C++
/// Programming Guide 13.0, "Feature Availability".
struct Target {
    least: (u32, u32),
    reach: Option<char>,
}

impl Target {
    fn of(kernels: &str) -> Self {
        let target = kernels.split(".target sm_").nth(1).unwrap_or_default();
        let digits: String = target.chars().take_while(char::is_ascii_digit).collect();
        let reach = target[digits.len()..].chars().next().filter(|sign| matches!(sign, 'a' | 'f'));
        let number: u32 = digits.parse().unwrap_or(0);
        Self { least: (number / 10, number % 10), reach }
    }

    fn runs_on(&self, capability: (u32, u32)) -> bool {
        match self.reach {
            Some('a') => capability == self.least,
            Some(_) => capability.0 == self.least.0 && capability >= self.least,
            None => capability >= self.least,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = self.least;
        match self.reach {
            Some('a') => write!(f, "{major}.{minor} alone"),
            Some(_) => write!(f, "{major}.{minor} and newer ones of its family"),
            None => write!(f, "{major}.{minor} and newer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn kernels_run_where_their_target_says() {
        let runs = |target: &str| {
            let target = Target::of(&format!(".version 9.0\n.target {target}\n.address_size 64"));
            let gpus = [(8, 0), (9, 0), (10, 0), (12, 1), (13, 0)];
            (target.to_string(), gpus.map(|gpu| target.runs_on(gpu)))
        };
        assert_eq!(runs("sm_80"), ("8.0 and newer".to_owned(), [true; 5]));
        assert_eq!(runs("sm_90a"), ("9.0 alone".to_owned(), [false, true, false, false, false]));
        let family = "12.0 and newer ones of its family".to_owned();
        assert_eq!(runs("sm_120f"), (family, [false, false, false, true, false]));
    }
}
