//! Fetching secrets at run time, from whichever service has them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use barecount_model::text::Name;
use jiff::Timestamp;

use crate::access::{Access, AccessLog, NotRecorded, Scope, Verdict};
use crate::key::KeySource;
use crate::reference::Reference;
use crate::secret::Secret;
use crate::store::{GetError, Limits, Place, Store, StoreError};

/// A value for some time.
#[derive(Debug)]
pub struct Lease {
    value: Secret,
    reference: Reference,
    expires_at: Timestamp,
}

impl Lease {
    /// Lends `value`, which is the version that `reference` names, until `expires_at`.
    pub fn new(value: Secret, reference: Reference, expires_at: Timestamp) -> Self {
        Self {
            value,
            reference,
            expires_at,
        }
    }

    /// The value.
    ///
    /// # Errors
    /// [`Expired`] from the moment of expiry on; fetch again.
    pub fn value(&self, now: Timestamp) -> Result<&Secret, Expired> {
        if now < self.expires_at {
            Ok(&self.value)
        } else {
            Err(Expired {
                reference: self.reference.clone(),
                expires_at: self.expires_at,
            })
        }
    }

    /// The value, for redaction alone: what was lent is to be found in logs after its expiry too.
    pub fn redactable(&self) -> &Secret {
        &self.value
    }

    /// The secret with its version.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// When the value may no longer be used.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

/// A lease whose time is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the lease of secret `{reference}` ended at {expires_at}")]
pub struct Expired {
    /// The secret with its version.
    pub reference: Reference,
    /// When it ended.
    pub expires_at: Timestamp,
}

/// A request that was found to be within its scope. Only a [`Gate`] makes one, so that nobody can
/// ask a service past it.
#[derive(Debug, Clone, Copy)]
pub struct Permitted<'a> {
    reference: &'a Reference,
    scope: &'a Scope,
    now: Timestamp,
}

impl<'a> Permitted<'a> {
    /// What is asked for.
    pub fn reference(&self) -> &'a Reference {
        self.reference
    }

    /// Who asks.
    pub fn scope(&self) -> &'a Scope {
        self.scope
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.now
    }
}

/// A service that has secrets.
#[async_trait]
pub trait SecretsProvider: Send + Sync {
    /// Lends the value that is asked for.
    ///
    /// Cancel-safe: a request that is dropped has given nothing to anybody.
    ///
    /// # Errors
    /// [`ProviderError`].
    async fn fetch(&self, request: Permitted<'_>) -> Result<Lease, ProviderError>;
}

/// A service that did not lend a value. No part of it ever holds one.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The service has the secrets of another tenant.
    #[error("the service has no secrets of tenant `{tenant}`")]
    OtherTenant {
        /// Who asks.
        tenant: String,
    },
    /// The secret or version is not there.
    #[error("secret `{reference}` is not there")]
    NotFound {
        /// What was asked for.
        reference: Reference,
        /// What the service says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The service cannot be used.
    #[error("the secrets service cannot be used")]
    Unavailable {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The embedded store as a service.
#[derive(Debug)]
pub struct EmbeddedProvider {
    store: Store,
}

impl EmbeddedProvider {
    /// Lends from `store`, for as long as each request asks for.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

#[async_trait]
impl SecretsProvider for EmbeddedProvider {
    /// Blocks for the reading of a file when it has changed, otherwise for microseconds.
    async fn fetch(&self, request: Permitted<'_>) -> Result<Lease, ProviderError> {
        let tenant = &request.scope.tenant;
        if tenant != self.store.tenant() {
            return Err(ProviderError::OtherTenant {
                tenant: tenant.as_str().to_owned(),
            });
        }
        match self.store.get(request.reference) {
            Ok((reference, value)) => {
                let expires_at = request
                    .now
                    .checked_add(request.scope.lasts)
                    .unwrap_or(Timestamp::MAX);
                Ok(Lease::new(value, reference, expires_at))
            }
            Err(GetError::Store(source)) => Err(unavailable(request.reference, source)),
            Err(source @ (GetError::NotFound { .. } | GetError::NoVersion { .. })) => {
                Err(ProviderError::NotFound {
                    reference: request.reference.clone(),
                    source: Box::new(source),
                })
            }
        }
    }
}

/// A tenant without a store has no secrets: another try would find none either.
fn unavailable(reference: &Reference, source: StoreError) -> ProviderError {
    let missing = matches!(source, StoreError::Missing { .. });
    let source = Box::new(source);
    if missing {
        let reference = reference.clone();
        ProviderError::NotFound { reference, source }
    } else {
        ProviderError::Unavailable { source }
    }
}

/// The embedded stores of all tenants as a service. Each is opened when its tenant first asks, and
/// kept open.
#[derive(Debug)]
pub struct EmbeddedStores {
    place: Place,
    keys: Arc<dyn KeySource>,
    opened: Mutex<BTreeMap<Name, Arc<EmbeddedProvider>>>,
}

impl EmbeddedStores {
    /// Lends from the stores in a folder, whose keys come from `keys`. Nothing is opened yet.
    pub fn new(place: impl Into<Place>, keys: Arc<dyn KeySource>) -> Self {
        Self {
            place: place.into(),
            keys,
            opened: Mutex::default(),
        }
    }

    fn of(&self, tenant: &Name) -> Result<Arc<EmbeddedProvider>, StoreError> {
        // Held while a passphrase is stretched, so that it is stretched once.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(provider) = opened.get(tenant) {
            return Ok(provider.clone());
        }
        let keys = Box::new(self.keys.clone());
        let store = Store::open(self.place.clone(), tenant.clone(), keys, Limits::default())?;
        let provider = Arc::new(EmbeddedProvider::new(store));
        opened.insert(tenant.clone(), provider.clone());
        Ok(provider)
    }
}

#[async_trait]
impl SecretsProvider for EmbeddedStores {
    /// Blocks as [`EmbeddedProvider`] does, and for the opening of a store.
    async fn fetch(&self, request: Permitted<'_>) -> Result<Lease, ProviderError> {
        let provider = self
            .of(&request.scope.tenant)
            .map_err(|error| unavailable(request.reference, error))?;
        provider.fetch(request).await
    }
}

#[async_trait]
impl<P: SecretsProvider + ?Sized> SecretsProvider for Arc<P> {
    async fn fetch(&self, request: Permitted<'_>) -> Result<Lease, ProviderError> {
        (**self).fetch(request).await
    }
}

/// A value that was not given.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The manifest does not declare the secret.
    #[error("stage `{stage}` does not declare secret `{reference}`")]
    NotDeclared {
        /// Who asked.
        stage: String,
        /// For what.
        reference: Reference,
    },
    /// The service did not lend it.
    #[error("secret `{reference}` cannot be fetched")]
    Provider {
        /// What was asked for.
        reference: Reference,
        /// Why.
        #[source]
        source: ProviderError,
    },
    /// The access could not be recorded, so nothing was given.
    #[error("secret `{reference}` is not given")]
    NotRecorded {
        /// What was asked for.
        reference: Reference,
        /// Why.
        #[source]
        source: NotRecorded,
    },
}

impl FetchError {
    /// What to do about it, in a sentence.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotDeclared { stage, reference } => {
                format!("Declare `{reference}` under `secrets` of stage `{stage}`.")
            }
            Self::Provider {
                source: ProviderError::NotFound { reference, .. },
                ..
            } => format!("Set it with `barecount secrets set {}`.", reference.name),
            Self::Provider { .. } | Self::NotRecorded { .. } => return None,
        })
    }
}

/// The way to every service: what is not declared is refused, and every request is recorded
/// before anything is given. If it cannot be recorded, it fails closed.
pub struct Gate<P, L> {
    provider: P,
    log: L,
}

impl<P, L> std::fmt::Debug for Gate<P, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl<P: SecretsProvider, L: AccessLog> Gate<P, L> {
    /// Guards `provider`, and records in `log`.
    pub fn new(provider: P, log: L) -> Self {
        Self { provider, log }
    }

    /// Lends `reference` to the attempt of `scope`.
    ///
    /// Cancel-safe: a request that is dropped has given nothing; whether it was recorded is open.
    ///
    /// # Errors
    /// [`FetchError`], which was recorded too, unless it is [`FetchError::NotRecorded`].
    pub async fn fetch(
        &self,
        reference: &Reference,
        scope: &Scope,
        now: Timestamp,
    ) -> Result<Lease, FetchError> {
        let fetched = if scope.declared.contains(reference) {
            let request = Permitted {
                reference,
                scope,
                now,
            };
            let lent = self.provider.fetch(request).await;
            lent.map_err(|source| FetchError::Provider {
                reference: reference.clone(),
                source,
            })
        } else {
            Err(FetchError::NotDeclared {
                stage: scope.stage.as_str().to_owned(),
                reference: reference.clone(),
            })
        };
        let access = access(reference, scope, now, &fetched);
        match self.log.record(&access).await {
            Ok(()) => fetched,
            Err(source) => Err(FetchError::NotRecorded {
                reference: reference.clone(),
                source,
            }),
        }
    }
}

fn access(
    reference: &Reference,
    scope: &Scope,
    at: Timestamp,
    fetched: &Result<Lease, FetchError>,
) -> Access {
    let (reference, verdict, reason) = match fetched {
        Ok(lease) => (&lease.reference, Verdict::Allowed, None),
        Err(error @ FetchError::NotDeclared { .. }) => {
            (reference, Verdict::Refused, Some(error.to_string()))
        }
        Err(FetchError::Provider { source, .. }) => {
            (reference, Verdict::Failed, Some(source.to_string()))
        }
        Err(error @ FetchError::NotRecorded { .. }) => {
            (reference, Verdict::Failed, Some(error.to_string()))
        }
    };
    Access {
        reference: reference.clone(),
        tenant: scope.tenant.clone(),
        pipeline: scope.pipeline.clone(),
        stage: scope.stage.clone(),
        run: scope.run.clone(),
        attempt: scope.attempt,
        at,
        verdict,
        reason,
    }
}
