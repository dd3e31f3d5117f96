import DumpFormat
import Ledger

/// Lookups that never trap: a damaged dump may name a site or an owner it no longer has.
extension Snapshot {
    func site(_ id: UInt32) -> Site {
        id < sites.count ? sites[Int(id)] : Site()
    }

    func siteName(_ id: UInt32) -> SiteName {
        let site = site(id)
        let label = site.label.isEmpty ? (site.function.isEmpty ? "unknown" : site.function) : site.label
        return SiteName(label: label, file: site.file, line: site.line)
    }

    /// How long before the safepoint `time` was, on the ledger's clock.
    func age(_ time: UInt64) -> UInt64 { header.monotonicTime.less(time) }

    var uptime: UInt64 { age(header.startTime) }
}

extension OwnerKind {
    /// The word for several of them, or for their kind in general.
    var plural: String {
        switch self {
        case .process: "processes"
        case .retained: "retained messages"
        default: name + "s"
        }
    }
}

extension UInt64 {
    /// The difference, or 0 where damage or two clocks made it negative.
    func less(_ other: UInt64) -> UInt64 { self > other ? self - other : 0 }

    /// The share of a whole; 0 of nothing.
    func share(of whole: UInt64) -> Double { whole == 0 ? 0 : Double(self) / Double(whole) }

    /// `self - other`, clamped to what a signed number holds.
    func change(from other: UInt64) -> Int64 {
        self >= other ? Int64(clamping: self - other) : -Int64(clamping: other - self)
    }
}
