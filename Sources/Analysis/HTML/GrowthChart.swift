import DumpFormat

/// Counter, live and unreachable memory over several dumps, with the limit above them.
struct GrowthChart {
    private let points: [(x: Double, totals: Snapshot.Totals)]
    private let top: Double
    private let limit: UInt64
    private let times: [UInt64]
    private static let size = (width: 960.0, height: 220.0)

    init(_ snapshots: [Snapshot]) {
        let first = snapshots[0].header.wallTime
        let span = max(1, snapshots[snapshots.count - 1].header.wallTime.less(first))
        points = snapshots.map { (Double($0.header.wallTime.less(first)) / Double(span), $0.totals) }
        times = snapshots.map(\.header.wallTime)
        limit = snapshots[snapshots.count - 1].totals.limitBytes
        top = Double(max(1, points.map(\.totals.counterBytes).max() ?? 1, limit)) * 1.08
    }

    var svg: String {
        let series: [(id: String, name: String, value: (Snapshot.Totals) -> UInt64)] = [
            ("counter", "counter", { $0.counterBytes }), ("reachable", "live", { $0.liveBytes }),
            ("unreachable", "unreachable", { $0.unreachableBytes ?? 0 }),
        ]
        var svg = """
            <svg class="chart" viewBox="0 0 \(Int(Self.size.width)) \(Int(Self.size.height) + 24)" role="img" \
            aria-label="Counter, live and unreachable bytes over the dumps">

            """
        if limit > 0 {
            let y = place(0, limit).y
            svg += "<line class=\"limit\" x1=\"0\" x2=\"\(Self.size.width)\" y1=\"\(y)\" y2=\"\(y)\"/>"
            svg += "<text x=\"4\" y=\"\(y - 5)\">limit \(Format.bytes(limit))</text>\n"
        }
        for line in series {
            let places = points.map { place($0.x, line.value($0.totals)) }
            let path = places.map { "\($0.x),\($0.y)" }.joined(separator: " ")
            svg += "<polyline class=\"line-\(line.id)\" points=\"\(path)\"/>"
            for (place, point) in zip(places, points) {
                svg += "<circle class=\"line-\(line.id)\" cx=\"\(place.x)\" cy=\"\(place.y)\" r=\"4\">"
                svg += "<title>\(line.name): \(Format.bytes(line.value(point.totals)))</title></circle>"
            }
            svg += "\n"
        }
        for (anchor, x, time) in [("start", 8.0, times.first), ("end", Self.size.width - 8, times.last)] {
            guard let time else { continue }
            svg += "<text x=\"\(x)\" y=\"\(Self.size.height + 16)\" text-anchor=\"\(anchor)\">"
            svg += "\(Format.time(time))</text>\n"
        }
        let legend = series.map { "<li><i class=\"line-\($0.id)\"></i><b>\($0.name)</b></li>" }.joined()
        return svg + "</svg>\n<ul class=\"legend\">\(legend)</ul>\n"
    }

    private func place(_ x: Double, _ bytes: UInt64) -> (x: Double, y: Double) {
        func rounded(_ number: Double) -> Double { (number * 10).rounded() / 10 }
        return (
            rounded(8 + x * (Self.size.width - 16)),
            rounded(Self.size.height - 6 - Double(bytes) / top * (Self.size.height - 12))
        )
    }
}
