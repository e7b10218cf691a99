//! Families of metrics and their labels, written one after the other.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, LabelSetEncoder,
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

pub(in crate::run) type Written = Result<(), fmt::Error>;

/// Writes families one after the other.
pub(in crate::run) struct Families<'a, 'e>(pub(super) &'a mut DescriptorEncoder<'e>);

impl Families<'_, '_> {
    pub(super) fn counters<'l, V, L>(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        series: impl IntoIterator<Item = (L, V)>,
    ) -> Written
    where
        V: EncodeCounterValue + fmt::Debug,
        L: AsRef<[(&'static str, &'l str)]>,
    {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in series {
            let labels = Labels(labels.as_ref());
            let metric = family.encode_family(&labels)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> Written {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    pub(super) fn bytes(&mut self, name: &str, help: &str, value: u64) -> Written {
        let unit = Some(&Unit::Bytes);
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    /// Writes a counter without labels.
    pub(in crate::run) fn number(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        value: f64,
    ) -> Written {
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    /// Writes a gauge without labels.
    pub(in crate::run) fn gauge<V: EncodeGaugeValue + fmt::Debug>(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        value: V,
    ) -> Written {
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    pub(super) fn gauges<'l, L: AsRef<[(&'static str, &'l str)]>>(
        &mut self,
        (name, help): (&str, &str),
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> Written {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            let labels = Labels(labels.as_ref());
            let metric = family.encode_family(&labels)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}
