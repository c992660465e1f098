//! Counters for Prometheus.

use std::time::Duration;

use metrics::{counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Upper bounds of the seconds that are counted together.
const SECONDS: [f64; 14] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0];

/// What a service counts. Nothing of it names a tenant.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// The exporter refuses its bounds.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new().set_buckets(&SECONDS)?.build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
            describe_counter!("cryptodl_requests_total", "Requests by route, method and status");
            describe_histogram!("cryptodl_request_seconds", Unit::Seconds, "Time to the head of an answer, by route");
            describe_counter!("cryptodl_received_bytes_total", Unit::Bytes, "Bytes of keys and uploads that arrived");
            describe_counter!("cryptodl_jobs_accepted_total", "Jobs that were accepted, by model");
            describe_counter!("cryptodl_jobs_ended_total", "Jobs that ended, by model and outcome");
            describe_counter!("cryptodl_images_total", "Images of jobs that are done, by model");
            describe_counter!("cryptodl_sets_total", "Sets of jobs that are done, by model");
            describe_histogram!(
                "cryptodl_job_wait_seconds",
                Unit::Seconds,
                "From acceptance until the first set was begun, by model"
            );
            describe_histogram!(
                "cryptodl_job_compute_seconds",
                Unit::Seconds,
                "From the first set to the result, by model"
            );
            describe_counter!("cryptodl_leases_total", "Sets that were given to somebody who computes them, by model");
            describe_histogram!(
                "cryptodl_lease_seconds",
                Unit::Seconds,
                "How long somebody had a set, by model and outcome: done, given back, failed, refused, expired, or that of the job"
            );
            describe_counter!(
                "cryptodl_resumed_steps_total",
                "Steps of sets that were not computed again, because the service had kept what was done, by model"
            );
            describe_gauge!("cryptodl_disk_bytes", Unit::Bytes, "What lies on the disk beside the database, by kind");
            describe_gauge!("cryptodl_leases", "Sets that somebody computes");
            describe_gauge!("cryptodl_sets_waiting", "Sets that wait for somebody who computes them");
            describe_gauge!("cryptodl_jobs_pending", "Jobs that wait or run");
            describe_gauge!("cryptodl_connections", "Open connections");
            gauge!("cryptodl_leases").set(0.0);
            gauge!("cryptodl_sets_waiting").set(0.0);
            gauge!("cryptodl_jobs_pending").set(0.0);
            gauge!("cryptodl_connections").set(0.0);
        });
        Ok(Metrics { recorder, handle })
    }

    /// As Prometheus reads them.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// A request was answered.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let (route, method) = (route.to_owned(), method.to_owned());
        with_local_recorder(&self.recorder, || {
            let labels = [("route", route.clone()), ("method", method), ("status", status.to_string())];
            counter!("cryptodl_requests_total", &labels).increment(1);
            histogram!("cryptodl_request_seconds", "route" => route).record(took);
        });
    }

    /// Bytes arrived.
    pub fn received(&self, bytes: u64) {
        with_local_recorder(&self.recorder, || counter!("cryptodl_received_bytes_total").increment(bytes));
    }

    /// A job was accepted.
    pub fn accepted(&self, model: &str) {
        let model = model.to_owned();
        with_local_recorder(&self.recorder, || counter!("cryptodl_jobs_accepted_total", "model" => model).increment(1));
    }

    /// A job ended.
    pub fn ended(&self, model: &str, outcome: &'static str) {
        let model = model.to_owned();
        with_local_recorder(&self.recorder, || {
            counter!("cryptodl_jobs_ended_total", "model" => model, "outcome" => outcome).increment(1);
        });
    }

    /// A job is done.
    pub fn computed(&self, model: &str, images: u64, sets: u64, waited: Duration, took: Duration) {
        let model = model.to_owned();
        with_local_recorder(&self.recorder, || {
            counter!("cryptodl_images_total", "model" => model.clone()).increment(images);
            counter!("cryptodl_sets_total", "model" => model.clone()).increment(sets);
            histogram!("cryptodl_job_wait_seconds", "model" => model.clone()).record(waited);
            histogram!("cryptodl_job_compute_seconds", "model" => model).record(took);
        });
    }

    /// A set was given to somebody.
    pub fn leased(&self, model: &str) {
        let model = model.to_owned();
        with_local_recorder(&self.recorder, || counter!("cryptodl_leases_total", "model" => model).increment(1));
    }

    /// Somebody has a set no more.
    pub fn lease_ended(&self, model: &str, outcome: &'static str, took: Duration) {
        let model = model.to_owned();
        with_local_recorder(&self.recorder, || {
            histogram!("cryptodl_lease_seconds", "model" => model, "outcome" => outcome).record(took);
        });
    }

    /// So many steps of a set were done before.
    pub fn resumed(&self, model: &str, steps: usize) {
        let model = model.to_owned();
        with_local_recorder(&self.recorder, || {
            counter!("cryptodl_resumed_steps_total", "model" => model).increment(steps as u64);
        });
    }

    /// So many bytes of a kind lie on the disk.
    pub fn disk(&self, kind: &'static str, bytes: u64) {
        with_local_recorder(&self.recorder, || gauge!("cryptodl_disk_bytes", "kind" => kind).set(bytes as f64));
    }

    /// So many sets are being computed.
    pub fn leases(&self, sets: usize) {
        with_local_recorder(&self.recorder, || gauge!("cryptodl_leases").set(sets as f64));
    }

    /// So many sets wait.
    pub fn sets_waiting(&self, sets: u64) {
        with_local_recorder(&self.recorder, || gauge!("cryptodl_sets_waiting").set(sets as f64));
    }

    /// So many jobs wait or run.
    pub fn pending(&self, jobs: u64) {
        with_local_recorder(&self.recorder, || gauge!("cryptodl_jobs_pending").set(jobs as f64));
    }

    /// A connection opened, or closed.
    pub fn connections(&self, change: f64) {
        with_local_recorder(&self.recorder, || gauge!("cryptodl_connections").increment(change));
    }
}
