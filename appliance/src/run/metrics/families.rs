//! Families of metrics and their labels, written one after the other.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, LabelSetEncoder,
    MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// A label set whose values live as long as the scrape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels<'a>(pub(super) &'a [(&'static str, &'a str)]);

impl prometheus_client::encoding::EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        for label in self.0 {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// Result of writing a family.
pub(in crate::run) type Written = Result<(), fmt::Error>;

/// Name, help text and unit of a family.
#[derive(Debug, Clone, Copy)]
pub(in crate::run) struct Family<'a> {
    name: &'a str,
    help: &'a str,
    unit: Option<&'a Unit>,
}

impl<'a> Family<'a> {
    /// Returns a family without a unit.
    pub(in crate::run) const fn new(name: &'a str, help: &'a str) -> Self {
        Self {
            name,
            help,
            unit: None,
        }
    }

    /// Returns the family with a unit, which becomes a part of the name.
    pub(in crate::run) const fn in_unit(self, unit: &'a Unit) -> Self {
        Self {
            unit: Some(unit),
            ..self
        }
    }
}

/// Writes families one after the other.
pub(in crate::run) struct Families<'a, 'e>(pub(super) &'a mut DescriptorEncoder<'e>);

impl Families<'_, '_> {
    /// Writes the head of a family.
    fn descriptor<'s>(
        &'s mut self,
        family: Family<'s>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0
            .encode_descriptor(family.name, family.help, family.unit, kind)
    }

    /// Writes counters with labels.
    pub(super) fn counters<'l, V, L>(
        &mut self,
        family: Family<'_>,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> Written
    where
        V: EncodeCounterValue + fmt::Debug,
        L: AsRef<[(&'static str, &'l str)]>,
    {
        let mut family = self.descriptor(family, MetricType::Counter)?;
        for (labels, value) in series {
            let labels = Labels(labels.as_ref());
            let metric = family.encode_family(&labels)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }

    /// Writes a counter without labels or a unit.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> Written {
        let metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    /// Writes a counter of bytes without labels.
    pub(super) fn bytes(&mut self, name: &str, help: &str, value: u64) -> Written {
        let unit = Some(&Unit::Bytes);
        let metric = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    /// Writes a counter without labels whose value is not whole.
    pub(in crate::run) fn number(&mut self, family: Family<'_>, value: f64) -> Written {
        let metric = self.descriptor(family, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    /// Writes a gauge without labels.
    pub(in crate::run) fn gauge<V: EncodeGaugeValue + fmt::Debug>(
        &mut self,
        family: Family<'_>,
        value: V,
    ) -> Written {
        let metric = self.descriptor(family, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    /// Writes gauges with labels.
    pub(super) fn gauges<'l, L: AsRef<[(&'static str, &'l str)]>>(
        &mut self,
        family: Family<'_>,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> Written {
        let mut family = self.descriptor(family, MetricType::Gauge)?;
        for (labels, value) in series {
            let labels = Labels(labels.as_ref());
            let metric = family.encode_family(&labels)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}
