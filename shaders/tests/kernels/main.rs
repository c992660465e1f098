//! Every variant of every kernel against its definition in Rust, bit for bit, on any adapter that this machine has.
//!
//! Without an adapter these tests show as ignored; with `CRYPTODL_REQUIRE_ADAPTER=1` they fail instead.

mod device;
mod twins;

use std::process::ExitCode;
use std::sync::LazyLock;

use cryptodl_shaders::Multiply;
use device::Device;
use libtest_mimic::{Arguments, Failed, Trial};

static DEVICE: LazyLock<Option<Device>> = LazyLock::new(Device::open);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let required = std::env::var_os("CRYPTODL_REQUIRE_ADAPTER").is_some_and(|value| value == "1");
    let trials = twins::TESTS.iter().flat_map(|&(name, kernel, test)| {
        kernel.variants().map(move |variant| {
            let ignored = match &*DEVICE {
                None => !required,
                Some(device) => !device.int64 && variant.multiply == Multiply::U64 && kernel.variants().count() > 1,
            };
            let run = move || {
                let missing = "no adapter: install mesa-vulkan-drivers, or a GPU's driver";
                test(DEVICE.as_ref().ok_or(missing)?, variant);
                Ok::<(), Failed>(())
            };
            let name = match kernel.variants().count() {
                1 => name.to_owned(),
                2 => format!("{name} {:?}", variant.multiply),
                _ => format!("{name} {:?} {:?}", variant.multiply, variant.dot),
            };
            Trial::test(name, run).with_ignored_flag(ignored)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
