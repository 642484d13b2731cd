//! A metric family whose series come out in order and can be dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The metrics of one family, by label set `L`.
///
/// prometheus-client's own `Family` has a hash map within: its text has another order with each
/// start, and it cannot drop what a reload took away without being told each label set.
#[derive(Debug)]
pub struct Series<L, M> {
    metrics: Arc<RwLock<BTreeMap<L, M>>>,
    new: fn() -> M,
}

impl<L, M> Clone for Series<L, M> {
    fn clone(&self) -> Self {
        Series { metrics: Arc::clone(&self.metrics), new: self.new }
    }
}

impl<L, M> Series<L, M> {
    pub(super) fn new(new: fn() -> M) -> Self {
        Series { metrics: Arc::default(), new }
    }
}

impl<L: Ord, M: Clone> Series<L, M> {
    /// Returns the metric with these labels, a new one if there is none. The handle stays good.
    pub fn with(&self, labels: L) -> M {
        let known =
            self.metrics.read().unwrap_or_else(PoisonError::into_inner).get(&labels).cloned();
        known.unwrap_or_else(|| {
            let mut metrics = self.metrics.write().unwrap_or_else(PoisonError::into_inner);
            metrics.entry(labels).or_insert_with(self.new).clone()
        })
    }

    /// Drops the series that are not known, then makes those that are `expected`.
    pub(super) fn keep(
        &self,
        is_known: impl Fn(&L) -> bool,
        expected: impl IntoIterator<Item = L>,
    ) {
        let mut metrics = self.metrics.write().unwrap_or_else(PoisonError::into_inner);
        metrics.retain(|labels, _| is_known(labels));
        for labels in expected {
            metrics.entry(labels).or_insert_with(self.new);
        }
    }
}

impl<L, M> EncodeMetric for Series<L, M>
where
    L: EncodeLabelSet,
    M: EncodeMetric + TypedMetric,
{
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
        metrics
            .iter()
            .try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(labels)?))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.metrics.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
