//! Plaintext PyTorch on the same images: a process that classifies them whenever it is asked, so that its computations and
//! encrypted ones can take turns on a noisy machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

/// The script, from the root of the repository.
const SCRIPT: &str = "benches/plaintext.py";

/// What to do where PyTorch is missing.
const ADVICE: &str = "name a Python that has models/train/requirements.txt with --python";

/// How long PyTorch may take to load a model, or for one request. What takes longer hangs: a network
/// of 100 million multiply-adds needs minutes for 10,000 images on one core.
const LIMIT: Duration = Duration::from_secs(1800);

/// A running PyTorch, its model loaded and warmed up.
pub struct Peer {
    process: Child,
    /// None once it is to end.
    questions: Option<ChildStdin>,
    /// Lines that it writes to stdout.
    answers: Receiver<String>,
    /// What it writes to stderr.
    complaints: NamedTempFile,
    ready: Ready,
    /// Of each peer.
    seconds: Vec<Vec<f64>>,
}

/// What the script says when it is ready.
#[derive(Deserialize)]
struct Ready {
    torch: String,
    threads: usize,
    peers: Vec<Description>,
}

/// A way to compute the network.
#[derive(Clone, Deserialize, Serialize)]
struct Description {
    /// The first is the network as published.
    name: String,
    /// The batch size that was fastest.
    batch: usize,
    /// Share of right labels, where they mean something.
    accuracy: Option<f64>,
}

/// What the script says to each request: seconds of each classification, for each peer.
#[derive(Deserialize)]
struct Answer {
    seconds: Vec<Vec<f64>>,
}

/// What PyTorch took.
#[derive(Serialize)]
pub struct Plaintext {
    pub torch: String,
    pub threads: usize,
    pub peers: Vec<Measured>,
}

#[derive(Serialize)]
pub struct Measured {
    #[serde(flatten)]
    description: Description,
    /// Median of `repetitions`.
    pub seconds: f64,
    repetitions: Vec<f64>,
}

impl Measured {
    /// The peer in words.
    pub fn name(&self) -> String {
        format!("{}, batches of {}", self.description.name, self.description.batch)
    }

    pub fn accuracy(&self) -> Option<f64> {
        self.description.accuracy
    }
}

impl Peer {
    /// Starts `python` for the first `images` test images of a model's data set, whose files are in `data`.
    ///
    /// # Errors
    /// No script, no Python, or no PyTorch, with what to do.
    pub fn start(python: &str, model: &str, data: &Path, images: usize) -> Result<Self> {
        ensure!(Path::new(SCRIPT).is_file(), "there is no {SCRIPT} here: run from the root of the repository");
        let threads = rayon::current_num_threads().to_string();
        // A file, since nobody reads a pipe while PyTorch computes.
        let complaints = NamedTempFile::new()?;
        let mut process = Command::new(python)
            .args([SCRIPT, model, "--images", &images.to_string(), "--threads", &threads, "--data"])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints.reopen()?)
            .spawn()
            .with_context(|| format!("cannot start {python}: {ADVICE}"))?;
        let questions = process.stdin.take();
        let answers = lines(process.stdout.take().expect("a pipe"));
        match answer::<Ready>(&answers, &mut process) {
            Ok(ready) if !ready.peers.is_empty() => {
                let seconds = vec![Vec::new(); ready.peers.len()];
                Ok(Peer { process, questions, answers, complaints, ready, seconds })
            }
            Ok(_) => bail!("{SCRIPT} measures nothing"),
            Err(error) => {
                drop(questions);
                process.wait()?;
                bail!("{python} {SCRIPT}: {error}: {}; {ADVICE}", last_line(&complaints))
            }
        }
    }

    /// Classifies all images `times` times.
    ///
    /// # Errors
    /// The process is gone.
    pub fn classify(&mut self, times: usize) -> Result<()> {
        let questions = self.questions.as_mut().expect("the process is to go on");
        let asked = writeln!(questions, "{times}").and_then(|()| questions.flush()).context("PyTorch has ended");
        let Answer { seconds } = asked
            .and_then(|()| answer(&self.answers, &mut self.process))
            .with_context(|| last_line(&self.complaints))?;
        ensure!(seconds.len() == self.seconds.len(), "{SCRIPT} measured {} peers", seconds.len());
        self.seconds.iter_mut().zip(seconds).for_each(|(all, new)| all.extend(new));
        Ok(())
    }

    /// What it took since the last time.
    pub fn take(&mut self) -> Option<Plaintext> {
        let measured = self.ready.peers.iter().zip(&mut self.seconds).map(|(description, seconds)| {
            let repetitions = std::mem::take(seconds);
            let mut sorted = repetitions.clone();
            sorted.sort_by(f64::total_cmp);
            let seconds = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
            Some(Measured { description: description.clone(), seconds, repetitions })
        });
        let peers = measured.collect::<Option<Vec<_>>>()?;
        Some(Plaintext { torch: self.ready.torch.clone(), threads: self.ready.threads, peers })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its input.
        self.questions = None;
        self.process.wait().ok();
    }
}

/// Why it ended, if it said so.
fn last_line(complaints: &NamedTempFile) -> String {
    let said = std::fs::read(complaints.path()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.trim().lines().last().unwrap_or("it said nothing").to_owned()
}

/// The lines of `output`, read by a thread of their own, which ends with them.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        // Nobody listens any more once the peer is dropped.
        lines.map(|line| send.send(line)).take_while(Result::is_ok).for_each(drop);
    });
    receive
}

/// The next line, which is JSON. Ends the process that does not give it in time.
fn answer<T: DeserializeOwned>(answers: &Receiver<String>, process: &mut Child) -> Result<T> {
    answer_within(LIMIT, answers, process)
}

fn answer_within<T: DeserializeOwned>(limit: Duration, answers: &Receiver<String>, process: &mut Child) -> Result<T> {
    let line = match answers.recv_timeout(limit) {
        Ok(line) => line,
        Err(RecvTimeoutError::Disconnected) => bail!("PyTorch has ended"),
        Err(RecvTimeoutError::Timeout) => {
            // One that has ended by now needs no end.
            process.kill().ok();
            bail!("PyTorch gave no answer for {} s and was ended", limit.as_secs())
        }
    };
    serde_json::from_str(&line).context("PyTorch said something that is no measurement")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Child, Receiver<String>) {
        let mut process = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let answers = lines(process.stdout.take().unwrap());
        (process, answers)
    }

    #[test]
    fn answers_come_in_time_or_the_process_is_ended() {
        let (mut process, answers) = shell("echo '[1, 2]'; exec sleep 600");
        let long = Duration::from_secs(60);
        assert_eq!(answer_within::<Vec<u8>>(long, &answers, &mut process).unwrap(), [1, 2]);
        let late = answer_within::<Vec<u8>>(Duration::from_millis(10), &answers, &mut process).unwrap_err();
        assert!(late.to_string().contains("no answer for 0 s"), "{late}");
        assert!(!process.wait().unwrap().success());

        let (mut process, answers) = shell("echo no measurement");
        for expected in ["no measurement", "has ended"] {
            let error = answer_within::<Vec<u8>>(long, &answers, &mut process).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        process.wait().unwrap();
    }
}
