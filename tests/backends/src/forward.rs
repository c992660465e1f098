//! Methods of a backend that only ask the backend inside.

/// Defines the named methods of [`Backend`](cryptodl_core::backend::Backend) so that they ask `self.inner`. Steps are not
/// among them: they are composed from the primitives of the outer backend, unless that has its own.
macro_rules! forward {
    ($($method:ident)+) => { $(forward!(@ $method);)+ };
    (@ name) => { forward!(# name() -> &'static str); };
    (@ kernels) => { forward!(# kernels() -> &'static str); };
    (@ device) => { forward!(# device() -> String); };
    (@ basis) => { forward!(# basis() -> &std::sync::Arc<cryptodl_core::ring::RnsBasis>); };
    (@ is_host) => { forward!(# is_host() -> bool); };
    (@ transfers) => { forward!(# transfers() -> Option<cryptodl_core::backend::Transfers>); };
    (@ shape) => {
        fn shape<'a>(&self, x: &'a Self::Tensor) -> &'a Shape {
            self.inner.shape(x)
        }
    };
    (@ zeros) => { forward!(# zeros(shape: Shape) -> Result<Self::Tensor>); };
    (@ uninitialised) => { forward!(# uninitialised(shape: Shape) -> Result<Self::Tensor>); };
    (@ upload) => { forward!(# upload(shape: Shape, residues: &[u32]) -> Result<Self::Tensor>); };
    (@ download) => { forward!(# download(x: &Self::Tensor) -> Result<Vec<u32>>); };
    (@ copy) => {
        forward!(# copy(
            x: &Self::Tensor,
            from: &cryptodl_core::backend::Window,
            out: &mut Self::Tensor,
            to: &cryptodl_core::backend::Window
        ) -> Result<()>);
    };
    (@ unpack) => {
        forward!(# unpack(packed: &[u8], out: &mut Self::Tensor, component: usize) -> Result<bool>);
    };
    (@ pack) => { forward!(# pack(x: &Self::Tensor, component: usize) -> Result<Vec<u8>>); };
    (@ expand) => {
        forward!(# expand(
            source: &cryptodl_core::ring::UniformSource,
            first_object: u32,
            out: &mut Self::Tensor,
            component: usize
        ) -> Result<()>);
    };
    (@ linear) => { forward!(# linear(map: &LinearMap, x: &Self::Tensor) -> Result<Self::Tensor>); };
    (@ multiply) => { forward!(# multiply(a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>); };
    (@ add_constant) => { forward!(# add_constant(x: &mut Self::Tensor, constants: &[u32]) -> Result<()>); };
    (@ scale) => { forward!(# scale(x: &mut Self::Tensor, factors: &[u32]) -> Result<()>); };
    (@ add) => { forward!(# add(x: &mut Self::Tensor, y: &Self::Tensor) -> Result<()>); };
    (@ accumulate) => {
        forward!(# accumulate(acc: &mut Self::Tensor, x: &Self::Tensor, factors: &[u32]) -> Result<()>);
    };
    (@ subtract_scale) => {
        forward!(# subtract_scale(x: &mut Self::Tensor, y: &Self::Tensor, factors: &[u32]) -> Result<()>);
    };
    (@ accumulate_key) => {
        forward!(# accumulate_key(
            acc: &mut Self::Tensor,
            digit: &Self::Tensor,
            key: &Self::Tensor,
            row: usize
        ) -> Result<()>);
    };
    (@ forward_ntt) => { forward!(# forward_ntt(x: &mut Self::Tensor) -> Result<()>); };
    (@ inverse_ntt) => { forward!(# inverse_ntt(x: &mut Self::Tensor) -> Result<()>); };
    (@ convert_basis) => { forward!(# convert_basis(x: &Self::Tensor, limbs: &[usize]) -> Result<Self::Tensor>); };
    (@ prime_digit) => {
        forward!(# prime_digit(x: &Self::Tensor, part: usize, parts: usize, limbs: &[usize]) -> Result<Self::Tensor>);
    };
    (@ automorphism) => {
        forward!(# automorphism(
            automorphism: cryptodl_core::ring::Automorphism,
            x: &Self::Tensor
        ) -> Result<Self::Tensor>);
    };
    (@ synchronise) => { forward!(# synchronise() -> Result<()>); };
    (# $method:ident($($argument:ident: $kind:ty),*) -> $result:ty) => {
        fn $method(&self, $($argument: $kind),*) -> $result {
            self.inner.$method($($argument),*)
        }
    };
}
