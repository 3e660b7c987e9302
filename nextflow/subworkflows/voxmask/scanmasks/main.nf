//
// Foreground, anonymization area, patches and measures of CT and MR volumes
//

include { RESAMPLE                          } from '../../../modules/voxmask/resample/main'
include { SEGMENTFOREGROUND                 } from '../../../modules/voxmask/segmentforeground/main'
include { SEGMENTANONYMIZATIONAREA          } from '../../../modules/voxmask/segmentanonymizationarea/main'
include { CROPPATCHES                       } from '../../../modules/voxmask/croppatches/main'
include { QAMETRICS as QAMETRICS_FOREGROUND } from '../../../modules/voxmask/qametrics/main'
include { QAMETRICS as QAMETRICS_AREA       } from '../../../modules/voxmask/qametrics/main'

workflow SCANMASKS {
    take:
    ch_scan // channel: [ val(meta) with id and, if known, modality, path(image), path(foreground_reference) or [], path(area_reference) or [] ]
    val_resample // boolean: first put each image on the grid that RESAMPLE's ext.args name
    val_crop // boolean: cut patches

    main:
    ch_modality = ch_scan.map { meta, _file, _fg, _area -> [meta, meta.modality ?: 'auto'] }
    ch_foreground_reference = ch_scan.map { meta, _file, fg, _area -> [meta, fg] }
    ch_area_reference = ch_scan.map { meta, _file, _fg, area -> [meta, area] }

    image = ch_scan.map { meta, file, _fg, _area -> [meta, file] }
    report = channel.empty()
    if (val_resample) {
        RESAMPLE(image.map { meta, file -> [meta, file, []] })
        image = RESAMPLE.out.image
        report = RESAMPLE.out.report.map { meta, json -> [meta, 'resample', json] }
    }

    SEGMENTFOREGROUND(image.join(ch_modality))
    foreground = SEGMENTFOREGROUND.out.mask

    SEGMENTANONYMIZATIONAREA(image.join(foreground).join(ch_modality))
    anonymization_area = SEGMENTANONYMIZATIONAREA.out.mask
    picture = SEGMENTANONYMIZATIONAREA.out.picture

    patches = channel.empty()
    if (val_crop) {
        CROPPATCHES(image.join(foreground).join(anonymization_area))
        patches = CROPPATCHES.out.patches
        report = report.mix(CROPPATCHES.out.report.map { meta, json -> [meta, 'crop-patches', json] })
    }

    QAMETRICS_FOREGROUND(
        foreground.join(image).join(ch_foreground_reference).map { meta, mask, file, reference -> [meta, mask, file, reference, []] }
    )
    QAMETRICS_AREA(
        anonymization_area.join(image).join(ch_area_reference).map { meta, mask, file, reference -> [meta, mask, file, reference, []] }
    )

    report = report.mix(
        SEGMENTFOREGROUND.out.report.map { meta, json -> [meta, 'segment-foreground', json] },
        SEGMENTANONYMIZATIONAREA.out.report.map { meta, json -> [meta, 'segment-anonymization-area', json] },
        QAMETRICS_FOREGROUND.out.report.map { meta, json -> [meta, 'qa-metrics foreground', json] },
        QAMETRICS_AREA.out.report.map { meta, json -> [meta, 'qa-metrics anonymization-area', json] },
    )
    result = foreground.mix(
        SEGMENTFOREGROUND.out.picture,
        SEGMENTFOREGROUND.out.probability,
        anonymization_area,
        picture,
        SEGMENTANONYMIZATIONAREA.out.probability,
        patches,
        report.map { meta, _step, json -> [meta, json] },
    )

    emit:
    image // channel: [ val(meta), path(image) ], on the grid of the masks
    foreground // channel: [ val(meta), path(mask) ]
    anonymization_area // channel: [ val(meta), path(mask) ]
    patches // channel: [ val(meta), path(folder) ]
    picture // channel: [ val(meta), path(png) ]
    result // channel: [ val(meta), path(file or folder) ], everything that was made but the image
    report // channel: [ val(meta), val(step), path(json) ]
}
