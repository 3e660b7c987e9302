//
// Foreground, anonymization area, patches and measures of CT and MR volumes
//

include { RESAMPLE                            } from '../../../modules/voxmask/resample/main'
include { SEGMENTFOREGROUND                   } from '../../../modules/voxmask/segmentforeground/main'
include { SEGMENTANONYMIZATIONAREA            } from '../../../modules/voxmask/segmentanonymizationarea/main'
include { CROPPATCHES                         } from '../../../modules/voxmask/croppatches/main'
include { QAMETRICS as QAMETRICS_FOREGROUND   } from '../../../modules/voxmask/qametrics/main'
include { QAMETRICS as QAMETRICS_AREA         } from '../../../modules/voxmask/qametrics/main'

workflow SCANMASKS {
    take:
    ch_scan // channel: [ val(meta) with id and, if known, modality, path(image), path(foreground_reference) or [], path(area_reference) or [] ]
    val_resample // boolean: first put each image on the grid that RESAMPLE's ext.args name
    val_crop // boolean: cut patches

    main:
    ch_image = ch_scan.map { meta, image, _foreground, _area -> [meta, image] }
    ch_reports = channel.empty()

    if (val_resample) {
        RESAMPLE(ch_image.map { meta, image -> [meta, image, []] })
        ch_image = RESAMPLE.out.image
        ch_reports = ch_reports.mix(RESAMPLE.out.report.map { meta, report -> [meta, 'resample', report] })
    }

    ch_modality = ch_scan.map { meta, _image, _foreground, _area -> [meta, meta.modality ?: 'auto'] }
    SEGMENTFOREGROUND(ch_image.join(ch_modality))
    ch_foreground = SEGMENTFOREGROUND.out.mask

    SEGMENTANONYMIZATIONAREA(ch_image.join(ch_foreground).join(ch_modality))
    ch_area = SEGMENTANONYMIZATIONAREA.out.mask

    ch_patches = channel.empty()
    if (val_crop) {
        CROPPATCHES(ch_image.join(ch_foreground).join(ch_area))
        ch_patches = CROPPATCHES.out.patches
        ch_reports = ch_reports.mix(CROPPATCHES.out.report.map { meta, report -> [meta, 'crop-patches', report] })
    }

    ch_reference = ch_scan.map { meta, _image, foreground, area -> [meta, foreground, area] }
    QAMETRICS_FOREGROUND(
        ch_foreground.join(ch_image).join(ch_reference).map { meta, mask, image, reference, _area -> [meta, mask, image, reference, []] }
    )
    QAMETRICS_AREA(
        ch_area.join(ch_image).join(ch_reference).map { meta, mask, image, _foreground, reference -> [meta, mask, image, reference, []] }
    )

    ch_reports = ch_reports.mix(
        SEGMENTFOREGROUND.out.report.map { meta, report -> [meta, 'segment-foreground', report] },
        SEGMENTANONYMIZATIONAREA.out.report.map { meta, report -> [meta, 'segment-anonymization-area', report] },
        QAMETRICS_FOREGROUND.out.report.map { meta, report -> [meta, 'qa-metrics foreground', report] },
        QAMETRICS_AREA.out.report.map { meta, report -> [meta, 'qa-metrics anonymization-area', report] },
    )

    ch_result = ch_foreground.mix(
        SEGMENTFOREGROUND.out.picture,
        SEGMENTFOREGROUND.out.probability,
        ch_area,
        SEGMENTANONYMIZATIONAREA.out.picture,
        SEGMENTANONYMIZATIONAREA.out.probability,
        ch_patches,
        ch_reports.map { meta, _step, report -> [meta, report] },
    )

    emit:
    image              = ch_image // channel: [ val(meta), path(image) ], on the grid of the masks
    foreground         = ch_foreground // channel: [ val(meta), path(mask) ]
    anonymization_area = ch_area // channel: [ val(meta), path(mask) ]
    patches            = ch_patches // channel: [ val(meta), path(folder) ]
    picture            = SEGMENTANONYMIZATIONAREA.out.picture // channel: [ val(meta), path(png) ]
    result             = ch_result // channel: [ val(meta), path(file or folder) ], everything that was made but the image
    report             = ch_reports // channel: [ val(meta), val(step), path(json) ]
}
