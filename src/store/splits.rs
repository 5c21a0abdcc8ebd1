//! Which images trials were trained, validated and tested on.

use super::Store;
use super::query::ExperimentRow;

/// How many images a target has for training at one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    pub dataset: String,
    /// None: all.
    pub per_class: Option<usize>,
    /// The mean over replicates: where groups are set aside for validation, they differ.
    pub images: f64,
    pub classes: usize,
}

impl Store {
    /// How many images the finished trials of an experiment were trained on, by dataset and size.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn trained_on(&self, experiment: &ExperimentRow) -> anyhow::Result<Vec<Trained>> {
        let mut statement = self.connection.prepare(
            "SELECT named, split.per_class, avg(length(split.train) / 4.0), json_array_length(dataset.classes)
             FROM (SELECT DISTINCT cell.dataset AS named, trial.split AS own FROM planned
                   JOIN cell ON cell.experiment = planned.experiment AND cell.position = planned.position
                   JOIN trial ON trial.key = planned.trial WHERE planned.experiment = ?)
             JOIN split ON split.key = own JOIN dataset ON dataset.fingerprint = split.data
             GROUP BY named, split.per_class",
        )?;
        let rows = statement.query_map([experiment.id], |row| {
            Ok(Trained { dataset: row.get(0)?, per_class: row.get(1)?, images: row.get(2)?, classes: row.get(3)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The splits behind an experiment's trials as rows: dataset, per_class, replicate, part, sample id, class.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn split_rows(&self, experiment: &ExperimentRow) -> anyhow::Result<Vec<[String; 6]>> {
        let mut statement = self.connection.prepare(
            "SELECT DISTINCT split.key, dataset.name, split.per_class, split.replicate, split.train, split.val, split.test, split.data, dataset.classes
             FROM planned JOIN trial ON trial.key = planned.trial JOIN split ON split.key = trial.split
             JOIN dataset ON dataset.fingerprint = split.data WHERE planned.experiment = ? ORDER BY dataset.name, split.per_class, split.replicate",
        )?;
        let mut rows = statement.query([experiment.id])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (name, per_class, replicate): (String, Option<i64>, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let samples = self.samples(&row.get::<_, String>(7)?)?;
            let classes: Vec<String> = serde_json::from_str(&row.get::<_, String>(8)?)?;
            for (column, part) in [(4, "train"), (5, "val"), (6, "test")] {
                for at in row.get::<_, Vec<u8>>(column)?.chunks_exact(4) {
                    let (id, class) = &samples[u32::from_le_bytes([at[0], at[1], at[2], at[3]]) as usize];
                    let per_class = per_class.map_or("all".to_owned(), |count| count.to_string());
                    found.push([
                        name.clone(),
                        per_class,
                        replicate.to_string(),
                        part.to_owned(),
                        id.clone(),
                        classes[*class as usize].clone(),
                    ]);
                }
            }
        }
        Ok(found)
    }

    fn samples(&self, data: &str) -> anyhow::Result<Vec<(String, u32)>> {
        let mut statement =
            self.connection.prepare_cached("SELECT id, class FROM sample WHERE data = ? ORDER BY position")?;
        let rows = statement.query_map([data], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
