//! Linear maps in device memory, kept between calls: lane slices and ciphertext sets use the same maps again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cryptodl_core::backend::{LinearMap, Result};
use cryptodl_core::ring::RnsBasis;
use cryptodl_shaders::{Dot, LinearTables};

use super::pool::{Pool, Pooled};
use super::recorder::{Recorder, Slice};

/// A map as the kernel reads it.
#[derive(Debug)]
pub(super) struct DeviceMap {
    /// Shape and parameters; the contents are in `tables`.
    pub linear: LinearTables,
    /// Weights, gather indices and constants, in binding order.
    pub tables: [Pooled; 3],
}

/// Maps by the digest of their contents.
#[derive(Debug)]
pub(super) struct Maps {
    /// Bytes of maps that are kept.
    limit: u64,
    kept: Mutex<HashMap<[u8; 32], Arc<DeviceMap>>>,
}

impl Maps {
    pub fn new(limit: u64) -> Self {
        Maps { limit, kept: Mutex::default() }
    }

    /// `map` on the device, uploaded if it is not there.
    pub fn get(
        &self,
        map: &LinearMap,
        basis: &RnsBasis,
        dot: Dot,
        pool: &Arc<Pool>,
        recorder: &Recorder,
    ) -> Result<Arc<DeviceMap>> {
        let digest = digest(map, basis);
        let mut kept = self.kept.lock().expect("no code panics while it holds the maps");
        if let Some(map) = kept.get(&digest) {
            return Ok(Arc::clone(map));
        }
        let made = Arc::new(DeviceMap::new(LinearTables::new(basis, map, dot), pool, recorder)?);
        let bytes: u64 = kept.values().map(|map| map.bytes()).sum();
        if bytes + made.bytes() > self.limit {
            kept.clear();
        }
        kept.insert(digest, Arc::clone(&made));
        Ok(made)
    }
}

impl DeviceMap {
    fn new(mut linear: LinearTables, pool: &Arc<Pool>, recorder: &Recorder) -> Result<Self> {
        let upload = |words: Vec<u32>| {
            let bytes: &[u8] = bytemuck::must_cast_slice(&words);
            let buffer = pool.take(bytes.len() as u64)?;
            recorder.write(&Slice::whole(&buffer.buffer), &[bytes])?;
            Ok(buffer)
        };
        let weights = upload(std::mem::take(&mut linear.weights))?;
        let gather = upload(std::mem::take(&mut linear.gather))?;
        let constants = upload(std::mem::take(&mut linear.constants))?;
        Ok(DeviceMap { linear, tables: [weights, gather, constants] })
    }

    fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.buffer.size()).sum()
    }
}

fn digest(map: &LinearMap, basis: &RnsBasis) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let shape = [map.inputs(), map.rows(), map.taps(), map.positions(), map.groups(), map.group_stride() as usize];
    shape.iter().for_each(|&length| _ = hasher.update(&length.to_le_bytes()));
    (0..map.rows()).for_each(|row| _ = hasher.update(bytemuck::must_cast_slice(map.row(row))));
    (0..map.positions()).for_each(|position| _ = hasher.update(bytemuck::must_cast_slice(map.gather(position))));
    (0..basis.len()).for_each(|limb| _ = hasher.update(bytemuck::must_cast_slice(map.constants(limb))));
    hasher.finalize().into()
}
