//! One attempt: its policy, and what it has done so far.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use barecount_model::{manifest::EgressProtocol, untrusted::Label};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    descriptors::{Share, Taking},
    dns::responder::{Lookup, Zone},
    flow::Flow,
    inspect::Target,
    limit::Rate,
    name::HostName,
    path::{DialError, Dialled, FirstWord, Path, Plan},
    policy::{Declared, DeclaredDestinations, Limits, Mode, Policy, PolicyError},
    reason::{Reason, ReasonCode},
    record::{FlowLog, FlowProtocol, FlowRecord, Recorder, Verdict},
    synthetic::SyntheticNames,
};

/// For how long the addresses of a destination are used again. As long as inside, a name's address
/// may be kept by whoever asked for it.
const PLAN_LIFE: Duration = Duration::from_secs(5);
/// More destinations than these are resolved anew each time.
const MAX_PLANS: usize = 1_024;
/// The port of lookups.
const DNS_PORT: u16 = 53;

/// One attempt.
#[derive(Debug)]
pub(crate) struct AttemptState {
    policy: Policy,
    declared: DeclaredDestinations,
    path: Arc<Path>,
    names: Arc<SyntheticNames>,
    clock: Arc<dyn Clock>,
    slots: Arc<Semaphore>,
    share: Share,
    flow_rate: Rate,
    lookup_rate: Rate,
    pace: Option<Rate>,
    recorder: Mutex<Recorder>,
    open: Mutex<HashMap<u64, Arc<Flow>>>,
    next_flow: AtomicU64,
    plans: Mutex<HashMap<(Target, u16), (Instant, Plan)>>,
    cancelled: CancellationToken,
    flows: TaskTracker,
}

/// The room that an open connection takes.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    _taking: Taking,
}

/// Whether a connection is let through.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is declared.
    Allow(Target, EgressProtocol),
    /// It is not, and let through all the same.
    Audit(Target, Reason),
    /// It is not.
    Refuse(Option<HostName>, Reason),
}

impl AttemptState {
    pub(crate) fn new(
        policy: Policy,
        path: Arc<Path>,
        names: Arc<SyntheticNames>,
        clock: Arc<dyn Clock>,
        share: Share,
    ) -> Result<Self, PolicyError> {
        let declared = DeclaredDestinations::of(&policy)?;
        let limits = &policy.limits;
        let slots = usize::try_from(limits.max_flows).unwrap_or(usize::MAX);
        Ok(Self {
            declared,
            path,
            names,
            clock,
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            share,
            flow_rate: Rate::per_second(limits.new_flows_per_second.into()),
            lookup_rate: Rate::per_second(limits.dns_queries_per_second.into()),
            pace: limits.bytes_per_second.map(Rate::per_second),
            recorder: Mutex::new(Recorder::new(
                policy.profile,
                policy.mode,
                limits.max_records,
            )),
            open: Mutex::default(),
            next_flow: AtomicU64::new(0),
            plans: Mutex::default(),
            cancelled: CancellationToken::new(),
            flows: TaskTracker::new(),
            policy,
        })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.policy.limits
    }

    pub(crate) fn pace(&self) -> Option<&Rate> {
        self.pace.as_ref()
    }

    /// Room for one more connection.
    ///
    /// # Errors
    /// How many the attempt may have, where it has as many.
    pub(crate) fn slot(&self) -> Result<Slot, usize> {
        let most = usize::try_from(self.limits().max_flows).unwrap_or(usize::MAX);
        let permit = self.slots.clone().try_acquire_owned().map_err(|_| most)?;
        // With this one.
        let has = self.open_flows() - 1;
        let taking = self.share.take(has)?;
        Ok(Slot {
            _permit: permit,
            _taking: taking,
        })
    }

    /// Connections that are open now.
    pub(crate) fn open_flows(&self) -> usize {
        let most = usize::try_from(self.limits().max_flows).unwrap_or(usize::MAX);
        most.saturating_sub(self.slots.available_permits())
    }

    pub(crate) fn admits_flow(&self) -> bool {
        self.flow_rate.admit()
    }

    pub(crate) fn admits_lookup(&self) -> bool {
        self.lookup_rate.admit()
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.unix_millis()
    }

    pub(crate) fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    pub(crate) fn spawn(&self, flow: impl Future<Output = ()> + Send + 'static) {
        self.flows.spawn(flow);
    }

    /// Lets no flow live on.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Ends every flow and waits until each is closed and recorded.
    pub(crate) async fn close(&self) {
        self.cancel();
        self.flows.close();
        self.flows.wait().await;
    }

    /// Whether a connection to this destination is let through.
    pub(crate) fn decide(&self, destination: SocketAddr) -> Decision {
        let (address, port) = (destination.ip(), destination.port());
        if self.names.holds(address) {
            let Some(name) = self.names.name_of(address) else {
                let text = format!("{address} was given to no name");
                return Decision::Refuse(None, Reason::new(ReasonCode::AddressNotDeclared, text));
            };
            let declared = self.declared.name(&name, port);
            return self.judge(Target::Name(name), port, declared);
        }
        let declared = self.declared.address(address, port);
        self.judge(Target::Address(address), port, declared)
    }

    fn judge(&self, target: Target, port: u16, declared: Declared) -> Decision {
        let reason = match (declared, &target) {
            (Declared::Speaks(protocol), _) => return Decision::Allow(target, protocol),
            (Declared::OtherPorts, _) => Reason::new(
                ReasonCode::PortNotDeclared,
                format!("port {port} of `{target}` is not declared, others are"),
            ),
            (Declared::Nothing, Target::Name(name)) => Reason::new(
                ReasonCode::NameNotDeclared,
                format!("`{name}` is not declared"),
            ),
            (Declared::Nothing, Target::Address(address)) => Reason::new(
                ReasonCode::AddressNotDeclared,
                format!("the address {address} is not declared"),
            ),
        };
        match (self.policy.mode, target) {
            (Mode::Audit, target) => Decision::Audit(target, reason),
            (Mode::Enforce, Target::Name(name)) => Decision::Refuse(Some(name), reason),
            (Mode::Enforce, Target::Address(_)) => Decision::Refuse(None, reason),
        }
    }

    /// Resolves, unless that was done a moment ago, and connects.
    pub(crate) async fn dial(
        &self,
        target: &Target,
        port: u16,
        first: FirstWord<'_>,
    ) -> Result<Dialled, DialError> {
        let limit = self.limits().dial_timeout();
        let key = (target.clone(), port);
        let dialled = async {
            let plan = match self.known_plan(&key) {
                Some(plan) => plan,
                None => {
                    let plan = self.path.plan(target, port).await?;
                    self.keep_plan(key.clone(), plan.clone());
                    plan
                }
            };
            plan.connect(limit, first).await
        };
        let error = match tokio::time::timeout(limit, dialled).await {
            Ok(Ok(dialled)) => return Ok(dialled),
            Ok(Err(error)) => error,
            Err(_) => DialError::Timeout { after: limit },
        };
        self.plans.lock().expect("no holder panics").remove(&key);
        Err(self.path.explain(error).await)
    }

    /// How connections leave.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn known_plan(&self, key: &(Target, u16)) -> Option<Plan> {
        let plans = self.plans.lock().expect("no holder panics");
        let (made, plan) = plans.get(key)?;
        (made.elapsed() < PLAN_LIFE).then(|| plan.clone())
    }

    fn keep_plan(&self, key: (Target, u16), plan: Plan) {
        let mut plans = self.plans.lock().expect("no holder panics");
        if plans.len() >= MAX_PLANS {
            plans.retain(|_, (made, _)| made.elapsed() < PLAN_LIFE);
        }
        if plans.len() < MAX_PLANS {
            plans.insert(key, (Instant::now(), plan));
        }
    }

    /// Writes a flow down as open; the key closes it.
    pub(crate) fn opened(&self, flow: &Arc<Flow>) -> u64 {
        let key = self.next_flow.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().expect("no holder panics");
        open.insert(key, flow.clone());
        key
    }

    /// Writes down how a flow ended.
    pub(crate) fn closed(&self, key: u64, record: FlowRecord) {
        // Both locks, so that no reader sees the flow twice or not at all.
        let mut open = self.open.lock().expect("no holder panics");
        let mut recorder = self.recorder.lock().expect("no holder panics");
        open.remove(&key);
        recorder.add(record);
    }

    /// Writes down a packet that the sandbox's kernel refused.
    pub(crate) fn refused_packet(&self, protocol: FlowProtocol, destination: SocketAddr) {
        let text = "nothing but TCP and lookups gets anywhere";
        let name = self.names.name_of(destination.ip());
        self.refused(FlowRecord {
            name: name.map(|name| name.as_str().into()),
            address: Some(destination.ip()),
            port: destination.port(),
            protocol,
            reason: Some(Reason::new(ReasonCode::ProtocolRefused, text)),
            ..self.nothing_carried()
        });
    }

    /// Writes down that packets were refused of which nothing else is known.
    pub(crate) fn lost_refusals(&self) {
        let text = "packets were refused faster than they could be told; some are missing here";
        self.refused(FlowRecord {
            reason: Some(Reason::new(ReasonCode::ProtocolRefused, text)),
            ..self.nothing_carried()
        });
    }

    /// Writes down a lookup that found nothing, and which name server it was sent to.
    pub(crate) fn refuse_lookup(
        &self,
        name: Option<Label>,
        asked: Option<IpAddr>,
        code: ReasonCode,
    ) {
        let text = match (code, &name) {
            (ReasonCode::NameNotDeclared, Some(name)) => format!("`{name}` is not declared"),
            (ReasonCode::AddressNotDeclared, Some(name)) => {
                format!("`{name}` asks for an address that was given to no name")
            }
            (ReasonCode::LookupsTooFast, _) => "too many names are looked up".to_owned(),
            _ => "not a lookup that this name server answers".to_owned(),
        };
        self.refused(FlowRecord {
            name,
            address: asked,
            port: DNS_PORT,
            protocol: FlowProtocol::Dns,
            reason: Some(Reason::new(code, text)),
            ..self.nothing_carried()
        });
    }

    fn refused(&self, record: FlowRecord) {
        self.recorder.lock().expect("no holder panics").add(record);
    }

    /// A refusal at this moment, of which nothing else is known.
    fn nothing_carried(&self) -> FlowRecord {
        let now = self.now();
        FlowRecord {
            name: None,
            address: None,
            port: 0,
            protocol: FlowProtocol::Other,
            profile: self.policy.profile,
            path: None,
            bytes_up: 0,
            bytes_down: 0,
            first_at: now,
            last_at: now,
            verdict: Verdict::Refused,
            reason: None,
            count: 1,
        }
    }

    /// The record so far, as if every open flow ended now.
    pub(crate) fn log(&self) -> FlowLog {
        let open = self.open.lock().expect("no holder panics");
        let mut recorder = self.recorder.lock().expect("no holder panics").clone();
        let now = self.now();
        for flow in open.values() {
            recorder.add(flow.record(self.policy.profile, now));
        }
        recorder.into_log()
    }

    pub(crate) fn profile(&self) -> barecount_model::class::NetworkProfile {
        self.policy.profile
    }
}

impl Zone for AttemptState {
    fn addresses(&self, name: &HostName) -> Lookup {
        if self.policy.mode == Mode::Enforce && !self.declared.has_name(name) {
            return Lookup::Undeclared;
        }
        match self.names.addresses(name) {
            Some((v4, v6)) => Lookup::Found(v4, v6),
            None => Lookup::Exhausted,
        }
    }

    fn name_of(&self, address: IpAddr) -> Option<HostName> {
        self.names
            .name_of(address)
            .filter(|name| self.policy.mode == Mode::Audit || self.declared.has_name(name))
    }
}
