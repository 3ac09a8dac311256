//! Boundaries: where the data of a stage may be, and whose data a stage may read without saying so.
//!
//! A stage's boundary has three parts, each of which orders boundaries by strictness:
//!
//! - The *network profile*: what the stage can reach is where its data could go. Strictest is
//!   `on_prem_agent`, one facility and nothing beyond it; then `private_vpc`, `privatelink` and
//!   `vpn`, private networks all; outermost is `public_vpc_egress`.
//! - The *residency*: a place that the data must stay in. Two places are not comparable, and to
//!   require none is laxer than to require any.
//! - The *classification*: the more sensitive the stricter.
//!
//! A boundary is as strict as another if it is in all three parts. A stage may read what was written
//! inside a boundary that its own is as strict as; all else is a *crossing*, which the manifest has
//! to declare and policy to allow. The relation is a preorder: a chain of reads without a crossing
//! never leads anywhere that the first writer's boundary forbids, however long it is.

use serde::{Deserialize, Serialize};

use crate::class::NetworkProfile;
use crate::manifest::Classification;
use crate::text::{DatasetName, Name};

/// Where the data of a stage may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Boundary {
    /// What it may reach, and by which path.
    pub network_profile: NetworkProfile,
    /// Where it must stay, if it must.
    pub residency: Option<Name>,
    /// How sensitive it is.
    pub classification: Classification,
}

/// A part of a boundary in which a reader is laxer than a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Laxer {
    /// The reader reaches further.
    Network,
    /// The reader need not stay where the data must.
    Residency,
    /// The reader handles less sensitive data.
    Classification,
}

impl Boundary {
    /// In which parts `reader` is laxer than this boundary, in which the data was written. None
    /// means that it may read the data as it is.
    pub fn laxer_parts(&self, reader: &Self) -> Vec<Laxer> {
        let residency = self.residency.is_some() && self.residency != reader.residency;
        let parts = [
            (
                Laxer::Network,
                strictness(reader.network_profile) < strictness(self.network_profile),
            ),
            (Laxer::Residency, residency),
            (
                Laxer::Classification,
                reader.classification < self.classification,
            ),
        ];
        parts
            .into_iter()
            .filter_map(|(part, is_laxer)| is_laxer.then_some(part))
            .collect()
    }
}

impl std::fmt::Display for Boundary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}", self.network_profile, self.classification)?;
        match &self.residency {
            Some(residency) => write!(f, ", in {residency}"),
            None => Ok(()),
        }
    }
}

/// How little a network profile reaches, as far as data is concerned.
fn strictness(profile: NetworkProfile) -> u8 {
    match profile {
        NetworkProfile::PublicVpcEgress => 0,
        NetworkProfile::PrivateVpc | NetworkProfile::PrivateLink | NetworkProfile::Vpn => 1,
        NetworkProfile::OnPremAgent => 2,
    }
}

/// A dataset that a stage reads from within a stricter boundary than its own, as the manifest
/// declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    /// The dataset.
    pub dataset: DatasetName,
    /// The boundary in which it is written.
    pub from: Boundary,
    /// The boundary of the stage that reads it.
    pub to: Boundary,
    /// Why it may cross, in the words of the manifest.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_boundary() -> Vec<Boundary> {
        let places = [
            None,
            Some(Name::literal("plant-7")),
            Some(Name::literal("eu")),
        ];
        let mut boundaries = Vec::new();
        for network_profile in NetworkProfile::ALL {
            for residency in &places {
                for classification in Classification::ALL {
                    boundaries.push(Boundary {
                        network_profile: *network_profile,
                        residency: residency.clone(),
                        classification,
                    });
                }
            }
        }
        boundaries
    }

    fn crosses(from: &Boundary, to: &Boundary) -> bool {
        !from.laxer_parts(to).is_empty()
    }

    fn boundary(network_profile: NetworkProfile) -> Boundary {
        Boundary {
            network_profile,
            residency: None,
            classification: Classification::Internal,
        }
    }

    #[test]
    fn no_chain_of_reads_leads_where_the_first_writer_forbids() {
        let all = every_boundary();
        for a in &all {
            assert!(!crosses(a, a), "{a} may not read its own data");
            for b in all.iter().filter(|b| !crosses(a, b)) {
                for c in all.iter().filter(|c| !crosses(b, c)) {
                    assert!(!crosses(a, c), "{a} leaks through {b} to {c}");
                }
            }
        }
    }

    #[test]
    fn data_goes_to_as_strict_a_network_and_never_to_a_laxer_one() {
        use NetworkProfile::{OnPremAgent, PrivateLink, PrivateVpc, PublicVpcEgress, Vpn};
        let inwards = [PublicVpcEgress, PrivateVpc, OnPremAgent].map(boundary);
        for (position, from) in inwards.iter().enumerate() {
            for (other, to) in inwards.iter().enumerate() {
                assert_eq!(crosses(from, to), other < position, "{from} to {to}");
            }
        }
        for inside in [PrivateLink, Vpn] {
            assert!(!crosses(&boundary(inside), &boundary(PrivateVpc)));
            assert!(!crosses(&boundary(PrivateVpc), &boundary(inside)));
            assert!(crosses(&boundary(inside), &boundary(PublicVpcEgress)));
            assert!(crosses(&boundary(OnPremAgent), &boundary(inside)));
        }
    }

    #[test]
    fn data_leaves_its_place_for_another_and_for_none_only_by_crossing() {
        let stays = |place: Option<&'static str>| Boundary {
            residency: place.map(Name::literal),
            ..boundary(NetworkProfile::OnPremAgent)
        };
        let (seven, nine, nowhere) = (stays(Some("plant-7")), stays(Some("plant-9")), stays(None));
        assert_eq!(seven.laxer_parts(&nine), [Laxer::Residency]);
        assert_eq!(nine.laxer_parts(&seven), [Laxer::Residency]);
        assert_eq!(seven.laxer_parts(&nowhere), [Laxer::Residency]);
        assert_eq!(nowhere.laxer_parts(&seven), []);
    }

    #[test]
    fn sensitive_data_is_read_as_less_sensitive_only_by_crossing() {
        let classified = |classification| Boundary {
            classification,
            ..boundary(NetworkProfile::PrivateVpc)
        };
        for from in Classification::ALL {
            for to in Classification::ALL {
                let crossing = crosses(&classified(from), &classified(to));
                assert_eq!(crossing, to < from, "{from} to {to}");
            }
        }
    }
}
