import DumpFormat
import Ledger

/// A finding in words: a headline, and a paragraph that can be pasted into an incident as it is.
struct FindingStory {
    let finding: Finding
    let snapshot: Snapshot

    init(_ finding: Finding, _ snapshot: Snapshot) {
        self.finding = finding
        self.snapshot = snapshot
    }

    private var access: SiteName { snapshot.siteName(finding.access) }
    var site: SiteName { snapshot.siteName(finding.site) }
    private var wasPassedOn: Bool { finding.access != finding.site && finding.access != 0 }

    var headline: String {
        if !snapshot.hasClock { return heapDumpHeadline }
        let label = wasPassedOn ? access.label : site.label
        return switch finding.kind {
        case .unreachable: "\(verdict): \(label) loses buffers"
        case .survivors: "\(verdict): buffers outlive everything else of \(label)"
        case .growth: "\(verdict): buffers of \(label) only grow"
        case .share: "\(verdict): \(label) has nearly all memory"
        }
    }

    /// `Leak, proved`, and of a small one `Leak, proved, minor`.
    var verdict: String {
        "Leak, \(finding.confidence.word)\(finding.importance == .minor ? ", \(finding.importance.rawValue)" : "")"
    }

    var paragraph: String {
        if !snapshot.hasClock { return heapDumpParagraph }
        return [amount, since, place, owners, evidence, next, "Fingerprint \(finding.fingerprint)."]
            .filter { !$0.isEmpty }.joined(separator: " ")
    }

    private var amount: String {
        let share = Format.ratio(finding.amount.bytes.share(of: snapshot.totals.liveBytes))
        let which = finding.kind == .unreachable ? " that nobody holds" : ""
        return "\(Format.count(finding.amount.buffers, of: "buffer"))\(which),"
            + " \(Format.bytes(finding.amount.bytes)), \(share) of live bytes\(finding.importance.inWords)."
    }

    private var since: String {
        let first = snapshot.wallTime(finding.oldestBirth)
        let last = snapshot.wallTime(finding.newestBirth)
        return
            "First born \(Format.time(first)), \(Format.duration(snapshot.age(finding.oldestBirth))) before the dump;"
            + " last \(Format.time(last)), \(Format.duration(snapshot.age(finding.newestBirth))) before it."
    }

    private var place: String {
        let allocated = "Allocated at \(quoted(site))"
        guard wasPassedOn else { return allocated + ", and accessed nowhere else since." }
        return allocated + ", last accessed at \(quoted(access))."
    }

    var owners: String {
        guard let details = finding.details, details.ownerCount > 0 else {
            return "Owners: mostly \(finding.ownerKind.plural)."
        }
        let kinds = details.ownerKinds.prefix(3).map { kind, owners in
            "\(Format.count(UInt64(owners))) \(owners == 1 ? kind.name : kind.plural)"
        }
        let top = details.topOwners.prefix(3).map { owner, amount in
            "\(snapshot.ownerTitle(owner)) (\(Format.count(amount.buffers)), \(Format.bytes(amount.bytes)))"
        }
        var text = "Owners: \(kinds.joined(separator: ", "))"
        if details.closedOwners > 0 { text += ", \(Format.count(UInt64(details.closedOwners))) of them closed" }
        return text + "; most have \(top.joined(separator: ", "))."
    }

    private var evidence: String {
        var parts: [String] = []
        let lifetimes = Lifetimes(snapshot.site(finding.site))
        switch finding.kind {
        case .unreachable:
            parts.append(
                "at a safepoint, where no handler is running, no referrer reaches them"
                    + (finding.confidence.isProved ? ", which proves it" : reservation))
        case .survivors:
            let expected = Diagnosis.expectedLive(snapshot.site(finding.site), snapshot)
            parts.append(
                "the site's rate and lifetimes explain \(Format.count(UInt64(min(max(expected, 0), 1e15)), of: "live buffer"))"
            )
        case .growth:
            parts.append("nothing tells who holds them, and they only grow")
        case .share:
            let freed = Format.count(snapshot.site(finding.site).frees)
            parts.append("nearly everything that lives, the site freed \(freed), and memory is short")
        }
        if lifetimes.count >= Diagnosis.histogramFloor, let usual = lifetimes.bound(share: 0.999) {
            var part = "99.9 % of what that site freed lived under \(Format.duration(usual))"
            if let outlived = finding.details?.outlived {
                part += ", \(Format.count(outlived)) of the buffers here \(outlived == 1 ? "is" : "are") older"
            }
            parts.append(part)
        }
        if let growth = finding.growth {
            parts.append("they grew in every one of \(growth.dumps) dumps, \(growth.inWords("buffer"))")
        }
        return "Evidence (\(finding.confidence.word)): \(parts.joined(separator: "; "))."
    }

    /// Why absence is no proof in this dump; empty where it is, and where nothing is concluded from it.
    var reservation: String {
        finding.confidence.isProved || finding.kind != .unreachable
            ? "" : "; not proved, because \(EvidenceGrade(snapshot, for: .lost).reason)"
    }

    private var next: String {
        let place = wasPassedOn ? access : site
        let function = snapshot.site(wasPassedOn ? finding.access : finding.site).function
        let name = function.isEmpty || function == place.label ? "" : ", \(function)"
        let spot = place.location.isEmpty ? "\"\(place.label)\"" : "\(place.location)\(name)"
        switch finding.kind {
        case .unreachable:
            return "Next: read \(spot): some way out of it, perhaps an error or an early return, neither passes the"
                + " buffer on nor releases it."
        case .survivors:
            return "Next: read \(spot) for a way out that keeps the buffer; a dump with referrers would prove it."
        case .growth, .share:
            return "Next: take another dump in some minutes and compare (diff); then read \(spot)."
        }
    }

    private func quoted(_ name: SiteName) -> String {
        name.location.isEmpty ? "\"\(name.label)\"" : "\"\(name.label)\" (\(name.location))"
    }
}

extension GroupGrowth {
    /// `from 100 to 17,204 buffers (+1870.8 MiB, 120.4 MiB/s)`
    func inWords(_ noun: String) -> String {
        "from \(Format.count(first.buffers)) to \(Format.count(last.buffers, of: noun))"
            + " (\(Format.bytesChange(bytesChange)), \(Format.rate(bytesPerSecond: bytesPerSecond)))"
    }
}
