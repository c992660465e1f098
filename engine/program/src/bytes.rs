//! The canonical bytes of a Program, and its file: docs/format.md, "Program".
//!
//! Every Program has exactly one encoding, and every encoding is one Program: [`Program::content_bytes`] after
//! [`Program::read`] gives the bytes that were read. The digest is of these bytes, so it depends on no type of this program.

use std::io::{self, Read, Write};

use cryptodl_core::backend::Maintenance;
use cryptodl_core::ckks::{
    Digest, EncryptionKind, EvalKeyLayout, InputLayout, OutputLayout, Packing, ParamsSpec, Scale, SecurityLevel,
};
use cryptodl_core::wire::{Header, Kind, Reader, WireError, Writer};

use crate::arrangement::Arrangement;
use crate::check::{MAX_DEGREE, MAX_STEPS, MAX_TERMS};
use crate::{
    ActivationStep, CircuitPrivacy, Content, DiagonalMap, Geometry, Polynomial, PrivacyGoal, Program, ProgramError,
    QuantisedMap, Salt, ScorePacking, Step, Term, TermMap, Tolerance,
};

/// Largest payload of a Program file.
pub const MAX_PROGRAM_BYTES: u64 = 1 << 28;
/// Most items of any list.
const MAX_ITEMS: usize = 1 << 16;

/// What the digest begins with.
const DIGEST_TEXT: &[u8] = b"cryptodl program v3";

impl Program {
    /// BLAKE3 of `"cryptodl program v3"` and [`Self::content_bytes`]. Names are not in it.
    pub fn digest(&self) -> Digest {
        digest_of(&self.content_bytes())
    }

    /// The canonical bytes of all that decides a result.
    pub fn content_bytes(&self) -> Vec<u8> {
        let mut out = Bytes::default();
        out.content(&self.content);
        out.0
    }

    /// Writes the Program file.
    ///
    /// # Errors
    /// The sink fails.
    pub fn write(&self, sink: impl Write) -> io::Result<()> {
        let content = self.content_bytes();
        let mut names = Bytes::default();
        names.text(&self.model);
        self.names.iter().for_each(|name| names.text(name));
        names.count(self.class_names.len());
        self.class_names.iter().for_each(|name| names.text(name));
        let header = Header {
            kind: Kind::Program,
            program: digest_of(&content),
            params: Digest(self.content.params.digest()),
            payload: (8 + content.len() + names.0.len()) as u64,
        };
        let mut writer = Writer::new(sink, &header)?;
        writer.put(&(content.len() as u64).to_le_bytes())?;
        writer.put(&content)?;
        writer.put(&names.0)?;
        writer.finish()
    }

    /// Reads a Program file and checks everything in it: what it returns can be executed.
    ///
    /// # Errors
    /// A damaged file or one of another kind; bytes that are no Program; a Program that contradicts itself, with the step.
    pub fn read(source: impl Read) -> Result<Self, ProgramError> {
        let mut reader = Reader::new(source)?;
        reader.expect_kind(Kind::Program)?;
        let header = reader.header().clone();
        if header.payload > MAX_PROGRAM_BYTES {
            let allowed = format!("at most {MAX_PROGRAM_BYTES}");
            return Err(WireError::field("payload length", header.payload, allowed).into());
        }
        let mut payload = Vec::new();
        reader.replace(&mut payload, header.payload as usize)?;
        reader.finish()?;
        let program = Self::parse(&payload)?;
        let same = |field, actual: Digest, expected: Digest| {
            if actual == expected { Ok(()) } else { Err(WireError::field(field, actual, expected)) }
        };
        same("program digest of the header", header.program, program.digest())?;
        same("parameter digest of the header", header.params, Digest(program.content.params.digest()))?;
        program.check()?;
        Ok(program)
    }

    /// The payload of a Program file, unchecked.
    fn parse(payload: &[u8]) -> Result<Self, ProgramError> {
        let mut fields = Parser(payload);
        let length = fields.u64()?;
        let length = usize::try_from(length).ok().filter(|&length| length <= fields.0.len());
        let (content, names) = fields.0.split_at(length.ok_or_else(|| malformed("its content is longer than it"))?);
        let (mut content, mut names) = (Parser(content), Parser(names));
        let (fields, model) = (content.content()?, names.text()?);
        content.finish()?;
        let names_of_steps = fields.steps.iter().map(|_| names.text()).collect::<Result<_, _>>()?;
        let named = names.length("names of classes")?;
        let class_names = (0..named).map(|_| names.text()).collect::<Result<_, _>>()?;
        names.finish()?;
        Ok(Program { model, names: names_of_steps, class_names, content: fields })
    }
}

fn digest_of(content: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DIGEST_TEXT);
    hasher.update(content);
    Digest(hasher.finalize().into())
}

fn malformed(what: impl Into<String>) -> ProgramError {
    ProgramError::Malformed(what.into())
}

/// Writes. Integers have 32 bits, real numbers are IEEE doubles; both are little-endian.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn count(&mut self, number: usize) {
        let number = u32::try_from(number).expect("numbers of a Program have 32 bits");
        self.0.extend(number.to_le_bytes());
    }

    fn counts(&mut self, numbers: &[usize]) {
        numbers.iter().for_each(|&number| self.count(number));
    }

    fn real(&mut self, number: f64) {
        // Minus zero becomes zero, so that every number has one encoding.
        self.0.extend((number + 0.0).to_le_bytes());
    }

    fn reals(&mut self, numbers: &[f64]) {
        numbers.iter().for_each(|&number| self.real(number));
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend(text.as_bytes());
    }

    fn primes(&mut self, primes: &[u32]) {
        self.count(primes.len());
        primes.iter().for_each(|prime| self.count(*prime as usize));
    }

    fn content(&mut self, content: &Content) {
        let Content {
            salt,
            params,
            evaluation_keys,
            encryption,
            tolerance,
            input,
            steps,
            output,
            circuit_privacy,
            score_packing,
        } = content;
        self.0.extend(salt.0);
        self.counts(&[params.n, params.security.bits() as usize]);
        self.primes(&params.primes);
        self.primes(&params.special_primes);
        self.count(evaluation_keys.len());
        for layout in evaluation_keys {
            self.counts(&layout.fields().map(|field| field as usize));
        }
        self.count(match encryption {
            EncryptionKind::Secret => 0,
            EncryptionKind::Public => 1,
        });
        self.real(tolerance.total());
        self.counts(&input.shape);
        self.reals(&input.range);
        self.real(input.scale.value());
        self.counts(&[input.level, input.packing.log_leaves() as usize]);
        self.counts(&[output.classes, output.components, output.level]);
        self.real(output.scale.value());
        self.reals(&output.range);
        self.real(output.noise);
        self.counts(&circuit_privacy.map_or([0; 4], |privacy| {
            let CircuitPrivacy { goal, doublings, drop } = privacy;
            [goal.sets as usize, goal.bits as usize, doublings as usize, drop]
        }));
        if input.packing != Packing::Spread {
            self.counts(&score_packing.map_or([0; 3], |packing| {
                let ScorePacking { drop } = packing;
                [1, output.packing.log_leaves() as usize, drop]
            }));
        }
        self.count(steps.len());
        steps.iter().for_each(|step| self.step(step));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Linear { terms, constants, scale } => {
                self.counts(&[LINEAR, terms.len()]);
                terms.iter().for_each(|term| self.term(term));
                self.count(constants.len());
                self.reals(constants);
                self.real(scale.value());
            }
            Step::Activation { operand, activation } => {
                self.counts(&[ACTIVATION, *operand]);
                self.activation(activation);
            }
            Step::Maintenance { operand, maintenance, scale } => {
                self.counts(&[MAINTENANCE, *operand]);
                self.maintenance(maintenance);
                self.real(scale.value());
            }
        }
    }

    fn term(&mut self, term: &Term) {
        match &term.map {
            TermMap::Dense(map) => {
                self.counts(&[term.operand, DENSE]);
                self.real(term.factor);
                let g = &map.geometry;
                self.counts(&g.input);
                self.count(g.channels);
                for pair in [g.kernel, g.stride, g.padding, g.padding_after, g.dilation] {
                    self.counts(&pair);
                }
                self.count(g.groups);
                self.real(map.weight_scale);
                self.0.extend(map.weights.iter().map(|&weight| weight as u8));
            }
            TermMap::Diagonal(map) => {
                self.counts(&[term.operand, DIAGONAL]);
                self.real(term.factor);
                self.counts(&map.shape);
                self.real(map.weight_scale);
                self.reals(&map.factors);
            }
        }
    }

    fn activation(&mut self, activation: &ActivationStep) {
        let ActivationStep { negate, degree, channels, scales, maintenance } = activation;
        self.counts(&[usize::from(*negate), *degree, maintenance.len(), channels.len()]);
        maintenance.iter().for_each(|maintenance| self.maintenance(maintenance));
        scales.iter().for_each(|scale| self.real(scale.value()));
        for channel in channels {
            match channel {
                Polynomial::Horner(constants) => self.reals(constants),
                Polynomial::PatersonStockmeyer { shift, constants, multiples } => {
                    self.real(*shift);
                    self.reals(constants);
                    self.reals(multiples);
                }
            }
        }
    }

    fn maintenance(&mut self, maintenance: &Maintenance) {
        self.counts(&[usize::from(maintenance.relinearise), maintenance.drop]);
    }
}

// Codes.
const LINEAR: usize = 1;
const ACTIVATION: usize = 2;
const MAINTENANCE: usize = 3;
const DENSE: usize = 1;
const DIAGONAL: usize = 2;

type Parsed<T> = Result<T, ProgramError>;

/// Reads what [`Bytes`] writes. No list grows beyond the bytes that are there.
struct Parser<'a>(&'a [u8]);

impl<'a> Parser<'a> {
    fn take(&mut self, len: usize) -> Parsed<&'a [u8]> {
        if len > self.0.len() {
            return Err(malformed("it ends in the middle of a field"));
        }
        let (field, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(field)
    }

    fn array<const K: usize>(&mut self) -> Parsed<[u8; K]> {
        Ok(self.take(K)?.try_into().expect("as many bytes as were taken"))
    }

    fn finish(self) -> Parsed<()> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed(format!("{} bytes follow its end", self.0.len()))) }
    }

    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn count(&mut self) -> Parsed<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn counts<const K: usize>(&mut self) -> Parsed<[usize; K]> {
        let mut numbers = [0; K];
        for number in &mut numbers {
            *number = self.count()?;
        }
        Ok(numbers)
    }

    fn flag(&mut self, what: &str) -> Parsed<bool> {
        match self.count()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(malformed(format!("{what} is {other}, but 0 or 1 is needed"))),
        }
    }

    /// A number of items that follow.
    fn length(&mut self, what: &str) -> Parsed<usize> {
        self.at_most(what, MAX_ITEMS)
    }

    fn at_most(&mut self, what: &str, most: usize) -> Parsed<usize> {
        let length = self.count()?;
        let fits = length <= most;
        if fits { Ok(length) } else { Err(malformed(format!("{length} {what}, but at most {most} are allowed"))) }
    }

    /// A finite number. There is no negative zero, so that every number has one encoding.
    fn real(&mut self) -> Parsed<f64> {
        let number = f64::from_le_bytes(self.array()?);
        let canonical = number.is_finite() && !(number == 0.0 && number.is_sign_negative());
        if canonical { Ok(number) } else { Err(malformed(format!("{number:?} is no number that a Program has"))) }
    }

    fn reals(&mut self, count: usize) -> Parsed<Vec<f64>> {
        if count > self.0.len() / 8 {
            return Err(malformed("it ends in the middle of a list of numbers"));
        }
        (0..count).map(|_| self.real()).collect()
    }

    fn range(&mut self) -> Parsed<[f64; 2]> {
        Ok([self.real()?, self.real()?])
    }

    fn scale(&mut self) -> Parsed<Scale> {
        Scale::try_from(self.real()?).map_err(malformed)
    }

    fn text(&mut self) -> Parsed<String> {
        let len = self.length("bytes of a name")?;
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| malformed("a name is not UTF-8"))
    }

    fn primes(&mut self) -> Parsed<Vec<u32>> {
        let count = self.length("primes")?;
        (0..count).map(|_| Ok(self.count()? as u32)).collect()
    }

    fn content(&mut self) -> Parsed<Content> {
        let salt = Salt(self.array()?);
        let [n, security] = self.counts()?;
        let security = SecurityLevel::ALL.into_iter().find(|level| level.bits() as usize == security);
        let security = security.ok_or_else(|| malformed("its security level is none of 128, 192 and 256"))?;
        let params = ParamsSpec { n, primes: self.primes()?, special_primes: self.primes()?, security };
        let count = self.length("evaluation keys")?;
        let evaluation_keys = (0..count).map(|_| self.evaluation_key()).collect::<Parsed<_>>()?;
        let encryption = match self.flag("the kind of encryption")? {
            false => EncryptionKind::Secret,
            true => EncryptionKind::Public,
        };
        let tolerance = Tolerance::new(self.real()?).map_err(|error| malformed(error.to_string()))?;
        let (shape, range, scale) = (self.counts()?, self.range()?, self.scale()?);
        let [level, packing] = self.counts()?;
        let compact = |log_leaves: usize| match log_leaves {
            0 => Packing::Spread,
            log_leaves => Packing::Compact(log_leaves as u32),
        };
        let packing = compact(packing);
        let input = InputLayout { shape, range, scale, level, packing };
        let [classes, components, level] = self.counts()?;
        let (scale, range, noise) = (self.scale()?, self.range()?, self.real()?);
        let mut output = OutputLayout { packing: Packing::Spread, classes, components, level, scale, range, noise };
        let circuit_privacy = match self.counts()? {
            [0, 0, 0, 0] => None,
            [sets, bits, doublings, drop] => {
                let goal = PrivacyGoal { sets: sets as u32, bits: bits as u32 };
                Some(CircuitPrivacy { goal, doublings: doublings as u32, drop })
            }
        };
        let mut score_packing = None;
        if input.packing != Packing::Spread {
            score_packing = match self.counts()? {
                [0, 0, 0] => None,
                [1, log_leaves, drop] => {
                    output.packing = compact(log_leaves);
                    Some(ScorePacking { drop })
                }
                other => return Err(malformed(format!("its scores are packed like {other:?}"))),
            };
        }
        let count = self.at_most("steps", MAX_STEPS)?;
        let steps = (0..count).map(|_| self.step()).collect::<Parsed<_>>()?;
        Ok(Content {
            salt,
            params,
            evaluation_keys,
            encryption,
            tolerance,
            input,
            steps,
            output,
            circuit_privacy,
            score_packing,
        })
    }

    fn evaluation_key(&mut self) -> Parsed<EvalKeyLayout> {
        let fields: [usize; 4] = self.counts()?;
        EvalKeyLayout::from_fields(fields.map(|field| field as u32)).map_err(|error| malformed(error.to_string()))
    }

    fn step(&mut self) -> Parsed<Step> {
        Ok(match self.count()? {
            LINEAR => {
                let count = self.at_most("terms", MAX_TERMS)?;
                let terms = (0..count).map(|_| self.term()).collect::<Parsed<_>>()?;
                let count = self.length("constants")?;
                Step::Linear { terms, constants: self.reals(count)?, scale: self.scale()? }
            }
            ACTIVATION => Step::Activation { operand: self.count()?, activation: self.activation()? },
            MAINTENANCE => {
                Step::Maintenance { operand: self.count()?, maintenance: self.maintenance()?, scale: self.scale()? }
            }
            other => return Err(malformed(format!("steps of kind {other} are not known"))),
        })
    }

    fn term(&mut self) -> Parsed<Term> {
        let [operand, kind] = self.counts()?;
        let factor = self.real()?;
        let map = match kind {
            DENSE => {
                let geometry = Geometry {
                    input: self.counts()?,
                    channels: self.count()?,
                    kernel: self.counts()?,
                    stride: self.counts()?,
                    padding: self.counts()?,
                    padding_after: self.counts()?,
                    dilation: self.counts()?,
                    groups: self.count()?,
                };
                let weight_scale = self.real()?;
                geometry.check().map_err(malformed)?;
                let weights = self.take(geometry.weights() as usize)?;
                let weights = weights.iter().map(|&byte| i16::from(byte as i8)).collect();
                TermMap::Dense(QuantisedMap { geometry, weights, weight_scale })
            }
            DIAGONAL => {
                let (shape, weight_scale) = (self.counts()?, self.real()?);
                TermMap::Diagonal(DiagonalMap { shape, factors: self.reals(shape[0])?, weight_scale })
            }
            other => return Err(malformed(format!("terms of kind {other} are not known"))),
        };
        Ok(Term { operand, map, factor })
    }

    fn activation(&mut self) -> Parsed<ActivationStep> {
        let negate = self.flag("the sign of an activation")?;
        let [degree, products, channels] = self.counts()?;
        if !(2..=MAX_DEGREE).contains(&degree) {
            return Err(malformed(format!("an activation of degree {degree}, but 2 to {MAX_DEGREE} are allowed")));
        }
        let arrangement = Arrangement::of_degree(degree).iter().find(|found| found.products(degree) == products);
        let arrangement = *arrangement
            .ok_or_else(|| malformed(format!("{products} products for an activation of degree {degree}")))?;
        let maintenance = (0..products).map(|_| self.maintenance()).collect::<Parsed<Vec<_>>>()?;
        let scales = (0..=products).map(|_| self.scale()).collect::<Parsed<_>>()?;
        if channels > MAX_ITEMS {
            return Err(malformed(format!(
                "{channels} channels of an activation, but at most {MAX_ITEMS} are allowed"
            )));
        }
        let polynomial = |fields: &mut Self| {
            Ok(match arrangement {
                Arrangement::Horner => Polynomial::Horner(fields.reals(degree)?),
                Arrangement::PatersonStockmeyer => Polynomial::PatersonStockmeyer {
                    shift: fields.real()?,
                    constants: fields.reals(products)?,
                    multiples: fields.reals(products - 1)?,
                },
            })
        };
        let channels = (0..channels).map(|_| polynomial(self)).collect::<Parsed<_>>()?;
        Ok(ActivationStep { negate, degree, channels, scales, maintenance })
    }

    fn maintenance(&mut self) -> Parsed<Maintenance> {
        Ok(Maintenance { relinearise: self.flag("relinearisation")?, drop: self.count()? })
    }
}
