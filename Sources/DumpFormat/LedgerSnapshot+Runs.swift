internal import Ledger

extension LedgerSnapshot {
    /// The runs the page maps name.
    static func runs(_ image: LedgerImage) -> Snapshot.RunColumns {
        var runs = Snapshot.RunColumns()
        let slabs = image.records(.slabs, of: SlabRecord.self)
        let slots = image.records(.slots, of: SlotRecord.self)
        for chunk in 0..<image.rows(.chunks) {
            forEachRun(image, chunk) { page, entry, pages in
                var kind = Snapshot.RunColumns.Kind.buffer
                var sizeClass = SlotRecord.hugeClass
                var elements = UInt16(1)
                var live = UInt16(1)
                switch entry.kind {
                case .slab:
                    let slab = slabs[Int(entry.value)]
                    (kind, sizeClass, elements) = (.slab, slab.sizeClass, slab.elements)
                    live = slab.elements &- slab.freeCount
                case .buffer: sizeClass = slots[Int(entry.value)].sizeClass
                case .free, .reserve: (kind, elements, live) = (.reserve, 0, 0)
                }
                runs.chunk.append(UInt32(chunk))
                runs.firstPage.append(UInt16(page))
                runs.pages.append(UInt16(pages))
                runs.kind.append(kind.rawValue)
                runs.sizeClass.append(sizeClass)
                runs.elements.append(elements)
                runs.liveElements.append(live)
            }
        }
        return runs
    }

    /// Calls `body` with (first page, entry, pages) of each used run of a chunk. Entries that lead nowhere are passed
    /// over, and their number is returned.
    @discardableResult
    static func forEachRun(
        _ image: LedgerImage, _ chunk: Int, _ body: (Int, PageEntry, Int) -> Void
    ) -> Int {
        guard image.records(.chunks, of: ChunkRecord.self)[chunk].state == ChunkRecord.State.chunk.rawValue,
            chunk < image.rows(.pageMap)
        else { return 0 }
        var lost = 0
        let map = image.record(.pageMap, chunk).assumingMemoryBound(to: PageEntry.self)
        var page = 0
        while page < SizeClasses.pagesPerChunk {
            let entry = map[page]
            var pages = 1
            switch entry.kind {
            case .slab where Int(entry.value) < image.rows(.slabs):
                pages = Int(image.records(.slabs, of: SlabRecord.self)[Int(entry.value)].pages)
                body(page, entry, pages)
            case .buffer where Int(entry.value) < image.rows(.slots):
                let sizeClass = Int(image.records(.slots, of: SlotRecord.self)[Int(entry.value)].sizeClass)
                if sizeClass < SizeClasses.count { pages = SizeClasses.bytes(of: sizeClass) / SizeClasses.pageSize }
                body(page, entry, pages)
            case .reserve:
                while page + pages < SizeClasses.pagesPerChunk, map[page + pages] == entry { pages += 1 }
                body(page, entry, pages)
            case .slab, .buffer: lost += 1
            case .free: break
            }
            page += max(1, pages)
        }
        return lost
    }
}
